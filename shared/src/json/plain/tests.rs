//! What is read by hand against what serde reads.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::Object;
use super::*;
use crate::event::FIELDS;

const OTHERS: [&str; 8] = ["clickId", "signature", "keyId", "expiresAt", "nonce", "ingestTime", "optOut", "é"];

fn name() -> impl Strategy<Value = String> {
    let known: Vec<&'static str> = FIELDS.iter().map(|(name, _, _)| *name).chain(OTHERS).collect();
    prop_oneof![8 => select(known).prop_map(str::to_owned), 1 => "[ -~]{0,12}", 1 => ".{0,4}"]
}

/// JSON values, right, nearly right and wrong.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-zA-Z0-9 _/.:;,\u{e9}\u{1f600}-]{0,40}".prop_map(|text| format!("\"{text}\"")),
        2 => ".{0,20}".prop_map(|text| format!("\"{text}\"")),
        2 => any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        2 => any::<i64>().prop_map(|number| number.to_string()),
        2 => (0..2_000_000_000_000_i64).prop_map(|number| number.to_string()),
        2 => "-?[0-9]{1,21}",
        1 => "-?[0-9]{0,3}[.eE+-]{0,2}[0-9]{0,3}",
        1 => select(vec!["null", "true", "false", "nul", "-0", "-", "[]", "{\"a\":1}", "\"2026-01-05T10:00:00Z\"", "01"])
            .prop_map(str::to_owned),
    ]
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\r\n]{0,2}", 1 => "[\u{b}\u{c}\u{a0}x]"]
}

prop_compose! {
    fn object()(
        fields in proptest::collection::vec((name(), value(), space()), 0..8),
        outer in [space(), space()],
        end in prop_oneof![9 => Just("}"), 1 => select(vec!["", ",}", "}}", "} {", "}\0"])],
    ) -> String {
        let fields: Vec<String> = fields.iter().map(|(name, value, space)| format!("{space}\"{name}\"{space}:{space}{value}{space}")).collect();
        format!("{}{{{}{end}{}", outer[0], fields.join(","), outer[1])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_plain_is_read_as_serde_reads_it(text in object()) {
        if let Some(fields) = read(&text) {
            let theirs = serde_json::from_str::<Object<'_>>(&text).map(|object| object.0);
            prop_assert_eq!(Some(fields), theirs.ok(), "{}", text);
        }
    }

    #[test]
    fn ordinary_bytes_are_counted_as_one_by_one(bytes in proptest::collection::vec(prop_oneof![4 => 0x18..0x30_u8, 8 => any::<u8>(), 1 => Just(b'\\')], 0..40)) {
        let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        prop_assert_eq!(ordinary(&bytes), bytes.iter().position(special).unwrap_or(bytes.len()));
    }
}

#[test]
fn an_event_as_clients_send_it_is_plain() {
    let text = r#" { "eventId":"e1" , "timestamp":1767607200123,"expiresAt":"2026-01-05T10:00:00Z","userAgent":"Ä",
        "costMicros":0,"schemaVersion":1,"url":null,"optOut":true,"more":"x","count":-7}"#;
    let fields = read(text).unwrap();
    assert_eq!((fields.payload.event_time, fields.payload.cost_micros), (Some(1_767_607_200_123_000), Some(0)));
    let extra: Vec<_> = fields.payload.extra.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(extra, [("count", "-7"), ("more", "\"x\""), ("optOut", "true")]);
}
