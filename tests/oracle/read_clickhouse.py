"""Reads the totals of every campaign out of ClickHouse, as a stranger would: with the public client, as a user who may only
read, from the one view. Prints a line for each campaign and currency, in order.

    read_clickhouse.py HOST PORT DATABASE USER PASSWORD
"""
import sys

import clickhouse_connect

TOTALS = """
SELECT campaign_id, currency, sum(impressions), sum(clicks), sum(conversions), sum(cost_nanos), min(finality), max(finality)
FROM shown
WHERE grain = {grain:String}
GROUP BY campaign_id, currency
ORDER BY campaign_id, currency
"""


def main():
    host, port, database, user, password = sys.argv[1:]
    client = clickhouse_connect.get_client(
        host=host, port=int(port), database=database, username=user, password=password
    )
    for row in client.query(TOTALS, parameters={"grain": "ad_minute"}).result_rows:
        print(*row)


main()
