"""DuckDB over the files of bronze: counts of first events by ad, campaign, minute and type (`batch_day.sql`).

    duckdb_day.py LAKE DAY OUT [event_id|id_hash]      by which column equal ids are found
"""

import pathlib
import sys

import bronze
import duckdb


def scan(paths):
    return "read_parquet([" + ", ".join(f"'{p}'" for p in paths) + "], hive_partitioning = false)"


def count(archive, day, out):
    db = duckdb.connect()
    db.execute("SET enable_progress_bar = false; SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    view = f"SELECT *, coalesce(invalid IN {bronze.FORGED}, false) AS forged FROM "
    db.execute(f"CREATE VIEW archive AS {view}{scan(archive)}")
    db.execute(f"CREATE VIEW day AS {view}{scan(day)}")
    sql = pathlib.Path(__file__).with_name("batch_day.sql").read_text()
    db.execute(sql.replace("{ids}", (sys.argv[4:] or ["event_id"])[0]).replace("{out}", out))
    first = db.execute(f"SELECT sum(events)::BIGINT FROM '{out}'").fetchone()[0]
    return {"rows": db.execute("SELECT count(*) FROM day").fetchone()[0], "first": first}


if __name__ == "__main__":
    bronze.main(count)
