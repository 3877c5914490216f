//! What tests with tungstenite's client share.

use std::net::TcpStream;

use tungstenite::{Error, Message, WebSocket};

/// Reads what the test is about.
pub(crate) trait Hear {
    /// The next message that is no ping; tungstenite answers pings by itself. One comes whenever the
    /// connection was silent for a while, which on a busy machine can be any time.
    fn hear(&mut self) -> Result<Message, Error>;
}

impl Hear for WebSocket<TcpStream> {
    fn hear(&mut self) -> Result<Message, Error> {
        loop {
            match self.read()? {
                Message::Ping(_) => {}
                other => return Ok(other),
            }
        }
    }
}
