//! From messages to bytes.

use super::header::Header;
use super::mask::Mask;

/// Appends a frame to `out`; the header's `len` is taken from the payload.
pub fn frame(out: &mut Vec<u8>, header: Header, payload: &[u8]) {
    let header = Header { len: payload.len() as u64, ..header };
    out.reserve(super::header::HEADER_BYTES_MAX + payload.len());
    out.extend_from_slice(&header.encode());
    match header.mask {
        Some(key) => Mask::new(key).apply_into(out, payload),
        None => out.extend_from_slice(payload),
    }
}
