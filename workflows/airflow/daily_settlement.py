"""clickledger's daily settlement: wait for the day, recount it, make it final.

Only calls the command line. Exit codes decide: 0 goes on, 10 and 75 are retried, 99 (already final) is skipped,
anything else fails. The last line on stdout is one JSON object and becomes the task's XCom.
"""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

DAY = "{{ ds }}"

with DAG(
    dag_id="clickledger_daily_settlement",
    description="Exact recount, reconciliation and settlement of one UTC day",
    schedule="5 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 16,
        "retry_delay": timedelta(minutes=15),
        "env": {"CLICKLEDGER_CONFIG": "/etc/clickledger/clickledger.toml"},
        "append_env": True,
        "skip_on_exit_code": 99,
    },
    tags=["clickledger", "billing"],
) as dag:
    ready = BashOperator(task_id="ready", bash_command=f"clickledger batch ready --date {DAY}")
    batch = BashOperator(task_id="batch", bash_command=f"clickledger batch run --date {DAY}")
    # A batch that found nothing new (99) still lets reconcile finish what an earlier run began.
    reconcile = BashOperator(
        task_id="reconcile",
        bash_command=f"clickledger reconcile run --date {DAY}",
        trigger_rule="none_failed",
    )
    ready >> batch >> reconcile
