//! The header of a frame (RFC 6455 §5.2): 2 to 14 bytes.

use super::{ProtocolError, Role};

/// Longest header: 2 bytes, a 64-bit length, a masking key.
pub const HEADER_BYTES_MAX: usize = 14;

/// Longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// What a frame is (RFC 6455 §5.2, §11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0,
    /// Text, or its first fragment.
    Text = 1,
    /// Binary data, or its first fragment.
    Binary = 2,
    /// Close.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

impl Opcode {
    /// The opcode of a number, if it is not a reserved one.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong (RFC 6455 §5.5).
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Final fragment of its message.
    pub fin: bool,
    /// RSV1: "compressed" on a message's first frame (RFC 7692 §6).
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, if the frame is masked.
    pub mask: Option<[u8; 4]>,
    /// Length of the payload in bytes.
    pub len: u64,
}

/// The outcome of looking at bytes that may not be all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsing<T> {
    /// The value, and how many bytes it took.
    Done(T, usize),
    /// So many bytes at least must be there before looking again makes sense.
    NeedMore(usize),
}

impl Header {
    /// Reads a header from the front of `bytes`. A violation is reported from the first byte that
    /// shows it, even if the header is not whole.
    ///
    /// # Errors
    /// Everything RFC 6455 §5.2 and §5.5 forbid in a single header; what depends on the frames
    /// before it (continuations, RSV1 on them) is the decoder's.
    pub fn decode(bytes: &[u8], role: Role, deflate: bool) -> Result<Parsing<Self>, ProtocolError> {
        let Some(&first) = bytes.first() else {
            return Ok(Parsing::NeedMore(2));
        };
        let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
        let opcode = Opcode::from_bits(first & 0xf).ok_or(ProtocolError::ReservedOpcode)?;
        // RSV1 marks a message's first frame only (RFC 7692 §6.1); RSV2 and RSV3 have no meaning.
        let may_be_compressed = deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & 0x30 != 0 || (rsv1 && !may_be_compressed) {
            return Err(ProtocolError::ReservedBits);
        }
        if opcode.is_control() && !fin {
            return Err(ProtocolError::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(Parsing::NeedMore(2));
        };
        let masked = second & 0x80 != 0;
        match role {
            Role::Server if !masked => return Err(ProtocolError::Unmasked),
            Role::Client if masked => return Err(ProtocolError::Masked),
            _ => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() && short > 125 {
            return Err(ProtocolError::ControlTooLong);
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_at = 2 + length_bytes;
        let total = mask_at + if masked { 4 } else { 0 };
        // The top bit is in the first byte of the length: no need to wait for the rest.
        if short == 127 && bytes.get(2).is_some_and(|byte| byte & 0x80 != 0) {
            return Err(ProtocolError::LengthTopBit);
        }
        if bytes.len() < total {
            return Ok(Parsing::NeedMore(total));
        }
        let len = match short {
            126 => u64::from(u16::from_be_bytes([bytes[2], bytes[3]])),
            127 => u64::from_be_bytes(bytes[2..10].try_into().expect("eight bytes")),
            short => u64::from(short),
        };
        if (short == 126 && len < 126) || (short == 127 && len <= u64::from(u16::MAX)) {
            return Err(ProtocolError::LengthNotMinimal);
        }
        let mask = masked.then(|| bytes[mask_at..total].try_into().expect("four bytes"));
        let header = Self { fin, rsv1, opcode, mask, len };
        Ok(Parsing::Done(header, total))
    }

    /// The header as it goes on the wire, with its length in the shortest form.
    pub fn encode(&self) -> EncodedHeader {
        let mut out = EncodedHeader { bytes: [0; HEADER_BYTES_MAX], len: 0 };
        let flags = u8::from(self.fin) << 7 | u8::from(self.rsv1) << 6;
        let mask_bit = if self.mask.is_some() { 0x80 } else { 0 };
        out.bytes[0] = flags | self.opcode as u8;
        let mut at = match self.len {
            0..=125 => {
                out.bytes[1] = mask_bit | self.len as u8;
                2
            }
            126..=0xffff => {
                out.bytes[1] = mask_bit | 126;
                out.bytes[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
                4
            }
            _ => {
                out.bytes[1] = mask_bit | 127;
                out.bytes[2..10].copy_from_slice(&self.len.to_be_bytes());
                10
            }
        };
        if let Some(key) = self.mask {
            out.bytes[at..at + 4].copy_from_slice(&key);
            at += 4;
        }
        out.len = at as u8;
        out
    }
}

/// A header as bytes; dereferences to them.
#[derive(Debug, Clone, Copy)]
pub struct EncodedHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

impl EncodedHeader {
    /// Those bytes again, from elsewhere; `None` if they are more than any header has.
    pub fn from_bytes(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self { bytes, len: from.len() as u8 })
    }
}

impl std::ops::Deref for EncodedHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: u64, mask: Option<[u8; 4]>) -> Header {
        Header { fin: true, rsv1: false, opcode: Opcode::Binary, mask, len }
    }

    #[test]
    fn every_length_form_is_read_back_from_exactly_its_bytes() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 40, i64::MAX as u64] {
            for (role, mask) in [(Role::Server, Some([1, 2, 3, 4])), (Role::Client, None)] {
                let header = header(len, mask);
                let bytes = header.encode();
                let done = Header::decode(&bytes, role, false);
                assert_eq!(done, Ok(Parsing::Done(header, bytes.len())));
                for cut in 0..bytes.len() {
                    let need = Header::decode(&bytes[..cut], role, false);
                    assert!(
                        matches!(need, Ok(Parsing::NeedMore(n)) if n > cut && n <= bytes.len()),
                        "{len} cut at {cut}: {need:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn violations_are_named() {
        use ProtocolError::*;
        let cases: [(&[u8], ProtocolError); 13] = [
            (&[0xc2], ReservedBits),
            (&[0xa2], ReservedBits),
            (&[0x92], ReservedBits),
            (&[0x83], ReservedOpcode),
            (&[0x8b], ReservedOpcode),
            (&[0x09], FragmentedControl),
            (&[0x82, 0x00], Unmasked),
            (&[0x89, 0xfe], ControlTooLong),
            (&[0x88, 0xff], ControlTooLong),
            (&[0x82, 0xff, 0x80], LengthTopBit),
            (&[0x82, 0xfe, 0, 125, 0, 0, 0, 0], LengthNotMinimal),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], LengthNotMinimal),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], LengthNotMinimal),
        ];
        for (bytes, error) in cases {
            assert_eq!(Header::decode(bytes, Role::Server, false), Err(error), "{bytes:x?}");
        }
        assert_eq!(Header::decode(&[0x82, 0x80], Role::Client, false), Err(Masked));
    }

    #[test]
    fn rsv1_is_for_first_frames_under_the_extension() {
        let decode = |bytes: &[u8]| Header::decode(bytes, Role::Server, true);
        assert!(decode(&[0xc1, 0x80, 0, 0, 0, 0]).is_ok());
        assert_eq!(decode(&[0xc0]), Err(ProtocolError::ReservedBits));
        assert_eq!(decode(&[0xc9]), Err(ProtocolError::ReservedBits));
    }
}
