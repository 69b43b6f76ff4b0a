//! One record as bytes: `length u32 · crc32c u32 · partition u32 · position u64 · append_time i64 · payload`, little
//! endian. The checksum covers everything but itself.
//! Never: trusts a byte that the checksum does not cover.

use bytes::{Buf, BufMut, Bytes};

use super::super::{LogError, NewRecord, Record};
use crate::time::Timestamp;

/// The bytes before the payload.
const HEAD_BYTES: usize = 28;
/// Where the checksum stands, and what it covers after it.
const CHECKSUM_AT: usize = 4;
const CHECKED_FROM: usize = 8;

/// What the next bytes of a segment are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A record, and how many bytes it took.
    Frame(Record, usize),
    /// The beginning of a record that is so many bytes long at least.
    Short(usize),
    /// Not a record.
    Bad(&'static str),
}

/// The bytes a record takes in a segment.
pub(super) fn size(payload: &[u8]) -> u64 {
    u64::try_from(HEAD_BYTES + payload.len()).unwrap_or(u64::MAX)
}

/// Appends `record` at `position` to `into`.
pub(super) fn encode(into: &mut Vec<u8>, record: &NewRecord, position: u64) -> Result<(), LogError> {
    let bytes = record.payload.len();
    let Ok(length) = u32::try_from(bytes) else {
        return Err(LogError::Invalid(format!("a record of {bytes} bytes")));
    };
    let start = into.len();
    into.put_u32_le(length);
    into.put_u32_le(0);
    into.put_u32_le(record.partition);
    into.put_u64_le(position);
    into.put_i64_le(record.append_time.0);
    into.put_slice(&record.payload);
    let checksum = into.get(start..).and_then(checksum).unwrap_or(0);
    if let Some(place) = into.get_mut(start + CHECKSUM_AT..start + CHECKED_FROM) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    Ok(())
}

/// The checksum of a whole frame, whatever stands in the checksum's own place.
fn checksum(frame: &[u8]) -> Option<u32> {
    let length = crc32c::crc32c(frame.get(..CHECKSUM_AT)?);
    Some(crc32c::crc32c_append(length, frame.get(CHECKED_FROM..)?))
}

/// Reads the record that `bytes` begins with; its payload shares their memory.
pub(super) fn decode(bytes: &Bytes) -> Decoded {
    let Some(mut head) = bytes.get(..HEAD_BYTES) else { return Decoded::Short(HEAD_BYTES) };
    let length = head.get_u32_le();
    let stored = head.get_u32_le();
    let (partition, position, append_time) = (head.get_u32_le(), head.get_u64_le(), Timestamp(head.get_i64_le()));
    let Some(whole) = usize::try_from(length).ok().and_then(|n| n.checked_add(HEAD_BYTES)) else {
        return Decoded::Bad("its length is beyond this machine");
    };
    let Some(frame) = bytes.get(..whole) else { return Decoded::Short(whole) };
    if checksum(frame) != Some(stored) {
        return Decoded::Bad("its checksum does not match its bytes");
    }
    Decoded::Frame(Record { partition, position, append_time, payload: bytes.slice(HEAD_BYTES..whole) }, whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_back_and_any_flipped_bit_is_noticed(
            partition: u32, position: u64, time: i64, payload: Vec<u8>, at: prop::sample::Index, bit in 0..8_u32,
        ) {
            let append_time = Timestamp(time);
            let new = NewRecord { partition, append_time, payload: payload.into() };
            let mut bytes = Vec::new();
            encode(&mut bytes, &new, position).unwrap();
            prop_assert_eq!(u64::try_from(bytes.len()).unwrap(), size(&new.payload));
            let record = Record { partition, position, append_time, payload: new.payload };
            let whole = Bytes::from(bytes.clone());
            prop_assert_eq!(decode(&whole), Decoded::Frame(record, bytes.len()));
            prop_assert!(matches!(decode(&whole.slice(..at.index(bytes.len()))), Decoded::Short(_)));
            let place = at.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert!(!matches!(decode(&Bytes::from(bytes)), Decoded::Frame(..)));
        }
    }

    #[test]
    fn zeros_are_not_a_record() {
        assert!(matches!(decode(&Bytes::from_static(&[0; 64])), Decoded::Bad(_)));
    }
}
