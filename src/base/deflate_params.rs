//! What a connection agreed on for permessage-deflate (RFC 7692 §7.1).

use super::snapshot::{Reader, SnapshotError, Writer};

/// Agreed parameters of permessage-deflate. Both `no_context_takeover` parameters always hold:
/// compression keeps no state between messages here, so there is no field for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateParams {
    /// Base-2 logarithm of the window of what the server compresses, 9 to 15 (8 only in the client
    /// role, where it is the peer's).
    pub server_window_bits: u8,
    /// Base-2 logarithm of the window of what the client compresses, 9 to 15 (8 only in the server
    /// role, where it is the peer's). A receiver inflates with 15 whatever this is.
    pub client_window_bits: u8,
}

impl DeflateParams {
    /// Writes both.
    pub fn save(self, writer: &mut Writer) {
        let Self { server_window_bits, client_window_bits } = self;
        writer.u8(server_window_bits);
        writer.u8(client_window_bits);
    }

    /// Reads what [`DeflateParams::save`] wrote for a server's connection.
    ///
    /// # Errors
    /// As [`Reader`]; a window that no server agrees to.
    pub fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let loaded = Self { server_window_bits: reader.u8()?, client_window_bits: reader.u8()? };
        let valid = matches!(loaded.server_window_bits, 9..=15)
            && matches!(loaded.client_window_bits, 8..=15);
        if valid { Ok(loaded) } else { Err(SnapshotError::Invalid("window size")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agreement_of_a_server_is_read_back_and_no_other_is() {
        for server in 0..=16 {
            for client in 0..=16 {
                let params =
                    DeflateParams { server_window_bits: server, client_window_bits: client };
                let mut writer = Writer::new();
                params.save(&mut writer);
                let valid = (9..=15).contains(&server) && (8..=15).contains(&client);
                let expected =
                    if valid { Ok(params) } else { Err(SnapshotError::Invalid("window size")) };
                assert_eq!(DeflateParams::load(&mut Reader::new(writer.as_bytes())), expected);
            }
        }
    }
}
