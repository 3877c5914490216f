//! What a connection agreed on for permessage-deflate (RFC 7692 §7.1).

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
