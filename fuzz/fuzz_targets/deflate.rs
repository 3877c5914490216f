//! Compression: what we deflate we inflate again, at every level and window; what we inflate is
//! what flate2's own stream inflates; no input inflates beyond its cap.

#![no_main]

use flate2::{Decompress, FlushDecompress, Status};
use libfuzzer_sys::fuzz_target;
use steadfast::ws::ProtocolError;
use steadfast::ws::deflate::{Deflater, Inflater, Strength};

fuzz_target!(|bytes: &[u8]| {
    let [mode, size, data @ ..] = bytes else {
        return;
    };
    // Deflate needs something that shrinks.
    let repeated = data.repeat(1 + usize::from(size & 15));
    round_trip(*mode, &repeated);
    inflate(data, [10, 1_000, 100_000, 1 << 20][usize::from(size >> 6)]);
});

fn round_trip(mode: u8, payload: &[u8]) {
    let strength = Strength { level: mode % 9 + 1, window_bits: 9 + (mode >> 4) % 7 };
    let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
    let mut out = vec![0xaa; usize::from(mode)];
    for _ in 0..2 {
        if deflater.deflate(strength, payload, &mut out) {
            assert!(out.len() < payload.len());
            assert_eq!(inflater.inflate(&out, payload.len()), Ok(payload), "{strength:?}");
            let smaller = inflater.inflate(&out, payload.len() - 1);
            assert_eq!(smaller, Err(ProtocolError::MessageTooBig));
            assert_eq!(naive(&out, payload.len()).as_deref(), Some(payload));
        }
    }
}

fn inflate(payload: &[u8], max: usize) {
    let mut inflater = Inflater::default();
    let once = inflater.inflate(payload, max).map(<[u8]>::to_vec);
    let twice = inflater.inflate(payload, max).map(<[u8]>::to_vec);
    assert_eq!(once, twice, "the state of a message has outlived it");
    match once {
        Ok(inflated) => {
            assert!(inflated.len() <= max);
            // The twin knows nothing of what may come behind a final block.
            if let Some(naive) = naive(payload, max) {
                assert_eq!(inflated, naive);
            }
        }
        Err(ProtocolError::MessageTooBig) => assert_eq!(naive(payload, max), None),
        Err(ProtocolError::InvalidDeflate) => {
            // A block that is cut inflates up to the cut; it is we who say that it is not whole.
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// The twin: RFC 7692 §7.2.2 as it is written, in one call. `None` if that is more than `max`
/// bytes, no deflate stream, or has a final block.
fn naive(payload: &[u8], max: usize) -> Option<Vec<u8>> {
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut raw = Decompress::new(false);
    let mut out = Vec::with_capacity(max + 1);
    match raw.decompress_vec(&input, &mut out, FlushDecompress::Sync) {
        Ok(Status::Ok | Status::BufError) if out.len() <= max => {}
        _ => return None,
    }
    (raw.total_in() == input.len() as u64).then_some(out)
}
