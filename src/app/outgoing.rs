//! A message on its way out.

use std::borrow::Cow;

use crate::ws::{Message, Opcode};

/// A message to be sent. Made from `&str` and `String` (text), `&[u8]` and `Vec<u8>` (binary), and
/// from a received [`Message`], whose memory it takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<'m> {
    pub(crate) opcode: Opcode,
    pub(crate) payload: Cow<'m, [u8]>,
}

impl<'m> Outgoing<'m> {
    /// A text message.
    pub fn text(text: impl Into<Cow<'m, str>>) -> Self {
        let payload = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { opcode: Opcode::Text, payload }
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Cow<'m, [u8]>>) -> Self {
        Self { opcode: Opcode::Binary, payload: bytes.into() }
    }
}

impl<'m> From<&'m str> for Outgoing<'m> {
    fn from(text: &'m str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Outgoing<'_> {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl<'m> From<&'m [u8]> for Outgoing<'m> {
    fn from(bytes: &'m [u8]) -> Self {
        Self::binary(bytes)
    }
}

impl From<Vec<u8>> for Outgoing<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl<'m> From<Message<'m>> for Outgoing<'m> {
    fn from(message: Message<'m>) -> Self {
        match message {
            Message::Text(text) => Self::text(text),
            Message::Binary(bytes) => Self::binary(bytes),
        }
    }
}
