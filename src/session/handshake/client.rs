//! The opening handshake, client side (RFC 6455 §4.1).
