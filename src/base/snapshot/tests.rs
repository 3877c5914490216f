use super::*;
use crate::base::testing::Sequence;

/// One of everything.
fn sample() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(1);
    writer.u16(0x0203);
    writer.u32(0x0405_0607);
    writer.u64(0x08090a0b_0c0d0e0f);
    writer.varint(300);
    writer.bool(true);
    writer.bytes(b"bytes");
    writer.str("t\u{e9}xt");
    writer.duration(Duration::from_millis(1_500));
    writer.option(Some(7), Writer::u16);
    writer.option(None, Writer::u16);
    writer.required_record(0x7fff, |writer| {
        writer.record(2, |writer| writer.str("inner"));
    });
    writer.record(3, |_| ());
    writer.into_bytes()
}

/// Reads a sample as it was written, and says what it met.
fn read_sample(bytes: &[u8]) -> Result<String, SnapshotError> {
    let mut reader = Reader::new(bytes);
    let mut seen = format!(
        "{} {:x} {:x} {:x} {} {} {:?} {} {:?} {:?} {:?}",
        reader.u8()?,
        reader.u16()?,
        reader.u32()?,
        reader.u64()?,
        reader.varint()?,
        reader.bool()?,
        reader.bytes()?,
        reader.str()?,
        reader.duration()?,
        reader.option(Reader::u16)?,
        reader.option(Reader::u16)?,
    );
    while let Some(mut record) = reader.record()? {
        seen += &format!(" [{} {}", record.tag, record.must_understand);
        while let Some(mut inner) = record.body.record()? {
            seen += &format!(" [{} {}]", inner.tag, inner.body.str()?);
            inner.body.finish()?;
        }
        seen += "]";
    }
    reader.finish()?;
    Ok(seen)
}

#[test]
fn what_was_written_is_read() {
    let expected = "1 203 4050607 8090a0b0c0d0e0f 300 true [98, 121, 116, 101, 115] t\u{e9}xt \
                    1.5s Some(7) None [32767 true [2 inner]] [3 false]";
    assert_eq!(read_sample(&sample()).as_deref(), Ok(expected));
}

#[test]
fn the_format_stays_as_it_is() {
    let mut writer = Writer::new();
    writer.u32(0x0102_0304);
    writer.varint(128);
    writer.str("ab");
    writer.option(Some(true), Writer::bool);
    writer.required_record(5, |writer| writer.u8(9));
    let expected = [
        &[4, 3, 2, 1][..],
        &[0x80, 1],
        &[2, b'a', b'b'],
        &[1, 1],
        &[5, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 9],
    ];
    assert_eq!(writer.as_bytes(), expected.concat());
}

#[test]
fn a_record_that_fails_leaves_nothing() {
    let mut writer = Writer::new();
    writer.u8(1);
    let outcome = writer.try_required_record(2, |writer| {
        writer.str("half of it");
        Err("no")
    });
    assert_eq!(outcome, Err("no"));
    assert_eq!(writer.as_bytes(), [1]);
    let outcome = writer.try_required_record(2, |writer| {
        writer.u8(7);
        Ok::<(), ()>(())
    });
    assert_eq!(outcome, Ok(()));
    assert_eq!(writer.as_bytes(), [1, 2, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
}

/// Between two records a cut shows only in what is then missing: the envelope around a
/// snapshot holds its length and checksum.
#[test]
fn a_snapshot_cut_anywhere_is_an_error_but_between_records() {
    let whole = sample();
    let outer_record = 10 + 10 + 1 + "inner".len();
    let empty_record = 10;
    let records_at = whole.len() - empty_record - outer_record;
    for length in 0..whole.len() {
        let read = read_sample(&whole[..length]);
        match length == records_at || length == records_at + outer_record {
            true => assert!(!read.unwrap().contains("[3 ")),
            false => assert_eq!(read, Err(SnapshotError::Truncated), "cut at {length}"),
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let whole = sample();
    let mut random = Sequence::new(1);
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        refused += u32::from(read_sample(&bytes).is_err());
    }
    assert!(refused > 5_000, "only {refused} of the damaged snapshots were refused");
}

#[test]
fn varints_are_exact() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
        let mut writer = Writer::new();
        writer.varint(value);
        let mut reader = Reader::new(writer.as_bytes());
        assert_eq!(reader.varint(), Ok(value));
        assert_eq!(reader.finish(), Ok(()));
    }
    let invalid = [
        &[0x80, 0][..],
        // The 65th bit, and an eleventh byte.
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0],
    ];
    for bytes in invalid {
        let read = Reader::new(bytes).varint();
        assert_eq!(read, Err(SnapshotError::InvalidVarint), "{bytes:?}");
    }
    assert_eq!(Reader::new(&[0xff]).varint(), Err(SnapshotError::Truncated));
}

#[test]
fn lengths_that_cannot_be_are_refused_before_anything_is_reserved() {
    let mut writer = Writer::new();
    writer.varint(u64::MAX);
    writer.u32(0);
    let reader = Reader::new(writer.as_bytes());
    assert_eq!({ reader }.bytes(), Err(SnapshotError::Truncated));
    assert_eq!({ reader }.count(1), Err(SnapshotError::Truncated));
    assert_eq!({ reader }.count(0), Err(SnapshotError::Truncated));

    let reader = Reader::new(&[3, 0, 0, 0, 0, 0, 0]);
    assert_eq!({ reader }.count(2), Ok(3));
    assert_eq!({ reader }.count(3), Err(SnapshotError::Truncated));
}

#[test]
fn values_that_cannot_be_are_refused() {
    let invalid = SnapshotError::Invalid("truth value");
    assert_eq!(Reader::new(&[2]).bool(), Err(invalid));
    assert_eq!(Reader::new(&[2, 0]).option(Reader::u8), Err(invalid));
    assert_eq!(Reader::new(&[1, 0xff]).str(), Err(SnapshotError::InvalidUtf8));
    let reader = Reader::new(&[0, 0]);
    assert_eq!(reader.finish(), Err(SnapshotError::TrailingBytes(2)));
}

#[test]
fn unknown_records_are_skipped_unless_they_must_be_understood() {
    let mut writer = Writer::new();
    writer.record(1, |writer| writer.bytes(&[0; 100]));
    writer.required_record(2, |_| ());
    let mut reader = Reader::new(writer.as_bytes());
    let optional = reader.record().unwrap().unwrap();
    assert_eq!(optional.skip_unknown(), Ok(()));
    let required = reader.record().unwrap().unwrap();
    assert_eq!(required.skip_unknown(), Err(SnapshotError::UnknownRecord(2)));
    assert!(reader.record().unwrap().is_none());
}

#[test]
#[should_panic(expected = "more than 15 bits")]
fn a_tag_does_not_spill_into_the_flag() {
    Writer::new().record(0x8001, |_| ());
}

#[test]
fn a_very_long_time_is_shortened() {
    let mut writer = Writer::new();
    writer.duration(Duration::MAX);
    let read = Reader::new(writer.as_bytes()).duration();
    assert_eq!(read, Ok(Duration::from_nanos(u64::MAX)));
}
