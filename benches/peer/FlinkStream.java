// Flink SQL on JSON lines: event time, ids deduplicated, one-minute tumbling counts, a cluster of two slots in this
// process. Usage: java -cp FLINK_LIBRARIES:. FlinkStream IN OUT SCRATCH PARALLELISM STATE
//
// IN holds one compressed file for each partition, so that each is read in its order: Flink cuts plain files into pieces
// and reads them in no order, and late events would be dropped. OUT becomes CSV files: minute, ad, campaign, type, count.

import java.nio.file.Path;
import java.util.Map;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

public class FlinkStream {
    public static void main(String[] args) throws Exception {
        String in = uri(args[0]), out = uri(args[1]), scratch = uri(args[2]);
        Map<String, String> settings = Map.ofEntries(
            Map.entry("parallelism.default", args[3]),
            Map.entry("state.backend.type", args[4]),
            Map.entry("execution.checkpointing.interval", "10 s"),
            Map.entry("execution.checkpointing.dir", scratch + "/checkpoints"),
            Map.entry("execution.checkpointing.incremental", "true"),
            Map.entry("restart-strategy.type", "disable"),
            Map.entry("taskmanager.memory.managed.size", "1 gb"),
            Map.entry("table.exec.state.ttl", "24 h"),
            Map.entry("table.local-time-zone", "UTC"),
            Map.entry("rest.bind-address", "127.0.0.1"),
            Map.entry("rest.bind-port", "0"),
            Map.entry("io.tmp.dirs", args[2]));
        TableEnvironment table = TableEnvironment.create(EnvironmentSettings.newInstance()
            .inStreamingMode().withConfiguration(Configuration.fromMap(settings)).build());
        // Only the columns that are needed: the parser skips the others.
        table.executeSql("CREATE TABLE events (eventId STRING, eventType STRING, `timestamp` BIGINT, adId STRING, "
            + "campaignId STRING, `time` AS TO_TIMESTAMP_LTZ(`timestamp`, 3), seen AS PROCTIME(), "
            + "WATERMARK FOR `time` AS `time` - INTERVAL '30' SECOND) WITH ('connector' = 'filesystem', 'path' = '" + in + "', "
            + "'format' = 'json')");
        table.executeSql("CREATE TABLE counts (`minute` TIMESTAMP(0), adId STRING, campaignId STRING, eventType STRING, "
            + "n BIGINT) WITH ('connector' = 'filesystem', 'path' = '" + out + "', 'format' = 'csv')");
        table.executeSql("CREATE TEMPORARY VIEW firsts AS SELECT `time`, adId, campaignId, eventType FROM (SELECT *, "
            + "ROW_NUMBER() OVER (PARTITION BY eventId ORDER BY seen ASC) AS nth FROM events) WHERE nth = 1");
        table.executeSql("INSERT INTO counts SELECT CAST(window_start AS TIMESTAMP(0)), adId, campaignId, "
            + "eventType, COUNT(*) FROM TABLE(TUMBLE(TABLE firsts, DESCRIPTOR(`time`), INTERVAL '1' MINUTE)) "
            + "GROUP BY window_start, window_end, adId, campaignId, eventType").await();
    }

    private static String uri(String path) {
        return Path.of(path).toUri().toString();
    }
}
