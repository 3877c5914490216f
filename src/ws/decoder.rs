//! From bytes to messages and control frames, however the bytes are cut (RFC 6455 §5, RFC 7692 §6).
//!
//! A message that arrives whole in one frame is unmasked where it lies and borrowed from the
//! input; everything else is assembled in memory that the decoder owns until it is whole. Between
//! two calls the decoder holds nothing but the bytes of what has not wholly arrived.

mod part;

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::base::spare::Spare;
use crate::base::tick::Tick;

use part::{PartialControl, PartialHeader};

use super::deflate::Inflater;
use super::header::{HEADER_BYTES_MAX, Header, Opcode, Parsing};
use super::mask::Mask;
use super::utf8::{self, Utf8Stream};
use super::{CloseFrame, ProtocolError, Role};

/// Shorter rests of a frame are received like everything else.
const DIRECT_BYTES_MIN: usize = 16 * 1024;

/// Most bytes to read to their place at once: they are unmasked while they are in the second-level
/// cache, half a megabyte of which has to hold what the kernel copies them from, too.
const DIRECT_BYTES_MAX: u64 = 128 * 1024;

/// Bytes of the longest character in UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;

/// Received bytes and how far they have been decoded. Decoding unmasks them in place.
#[derive(Debug)]
pub struct Input<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> Input<'b> {
    /// Nothing of `bytes` is decoded yet.
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The bytes that are not decoded yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Leaves out bytes that are no frames: the head before them.
    pub fn skip(&mut self, len: usize) {
        self.take(len);
    }

    /// Gives up what is not decoded yet: after a violation, or a Close.
    pub fn discard(&mut self) {
        self.at = self.bytes.len();
    }

    fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.at;
        self.at += len;
        start..self.at
    }
}

/// What the peer is held to; a copy for each call, since it depends on the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Our side of the connection.
    pub role: Role,
    /// permessage-deflate was agreed.
    pub deflate: bool,
    /// See [`Limits::message_bytes_max`](crate::base::limits::Limits::message_bytes_max).
    pub message_bytes_max: usize,
    /// See [`Limits::fragments_max`](crate::base::limits::Limits::fragments_max).
    pub fragments_max: u32,
}

impl Rules {
    /// Most bytes a message may take on the wire. Deflate can expand noise a little, and each
    /// flush of a streaming sender costs some bytes: a sixty-fourth and 1 KiB of grace.
    fn wire_bytes_max(&self, compressed: bool) -> u64 {
        let max = self.message_bytes_max as u64;
        if compressed { max.saturating_add(max / 64 + 1024) } else { max }
    }
}

/// A whole message, borrowed where it arrived whole, owned where it was assembled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'e> {
    /// Text; checked to be UTF-8.
    Text(Cow<'e, str>),
    /// Bytes.
    Binary(Cow<'e, [u8]>),
}

impl Message<'_> {
    /// The payload's bytes, whatever the kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The opcode of a frame that carries this message.
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Text(_) => Opcode::Text,
            Self::Binary(_) => Opcode::Binary,
        }
    }
}

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming<'e> {
    /// A message.
    Message(Message<'e>),
    /// A ping with its payload, at most 125 bytes.
    Ping(Cow<'e, [u8]>),
    /// A pong with its payload, at most 125 bytes.
    Pong(Cow<'e, [u8]>),
    /// A Close with its body, if it had one.
    Close(Option<CloseFrame>),
}

/// A message or frame that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// When it began, later by the time in which we did not read; [`Tick::NEVER`] before the first
    /// [`Decoder::mark`].
    pub begun: Tick,
    /// When its payload last grew.
    pub grown: Tick,
    /// Bytes of payload that have arrived.
    pub received: usize,
    /// Bytes of memory that are held for it.
    pub held: usize,
}

/// Room for the next bytes of a large frame.
#[derive(Debug)]
pub struct DirectRoom<'d> {
    /// To be appended to. Its capacity has room for `len` bytes more.
    pub buffer: &'d mut Vec<u8>,
    /// Most bytes to append.
    pub len: usize,
}

/// Decodes one connection's bytes.
///
/// Work per received byte is bounded: a payload byte is unmasked once, checked to be UTF-8 twice
/// (while it arrives, and as a `String`), copied once from the input, and moved at most three times
/// on average while its message grows (`Partial::make_room`). A header byte makes at most
/// 14 bytes be looked at again. Empty fragments are bounded by `fragments_max`; inflating is bounded
/// by [`Inflater::inflate`].
#[derive(Debug)]
pub struct Decoder {
    stage: Stage,
    /// The data message under way: begun, and not finished.
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
enum Stage {
    /// Between frames.
    // Next: Header, Data, Control, or Between again for a frame that is all there
    Between,
    /// Within a header; boxed, so that an idle connection does not have it.
    // Next: Data, Control, Between
    Header(Box<PartialHeader>),
    /// In the payload of a data frame, which goes to `partial`.
    // Next: Between
    Data { remaining: u64, mask: Option<Mask>, fin: bool },
    /// In the payload of a control frame.
    // Next: Between
    Control(Box<PartialControl>),
}

impl Stage {
    fn save(&self, now: Tick, writer: &mut Writer) {
        match self {
            Self::Between => {
                writer.u8(0);
                writer.bytes(&[]);
            }
            Self::Header(part) => {
                let PartialHeader { bytes, have, begun } = &**part;
                writer.u8(0);
                writer.bytes(&bytes[..usize::from(*have)]);
                writer.past(*begun, now);
            }
            Self::Data { remaining, mask, fin } => {
                writer.u8(1);
                writer.u64(*remaining);
                writer.option(*mask, |writer, mask| mask.save(writer));
                writer.bool(*fin);
            }
            Self::Control(frame) => {
                writer.u8(2);
                frame.save(now, writer);
            }
        }
    }

    fn load(now: Tick, reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        match reader.u8()? {
            0 => {
                let part = reader.bytes()?;
                if !is_part_of_header(part) {
                    return Err(SnapshotError::Invalid("part of a frame's header"));
                }
                if part.is_empty() {
                    return Ok(Self::Between);
                }
                let mut bytes = [0; HEADER_BYTES_MAX];
                bytes[..part.len()].copy_from_slice(part);
                let (have, begun) = (part.len() as u8, reader.past(now)?);
                Ok(Self::Header(Box::new(PartialHeader { bytes, have, begun })))
            }
            1 => {
                let remaining = reader.u64()?;
                // The top bit is never set (RFC 6455 §5.2).
                if i64::try_from(remaining).is_err() {
                    return Err(SnapshotError::Invalid("length of a frame"));
                }
                let mask = reader.option(Mask::load)?;
                Ok(Self::Data { remaining, mask, fin: reader.bool()? })
            }
            2 => Ok(Self::Control(Box::new(PartialControl::load(now, reader)?))),
            _ => Err(SnapshotError::Invalid("stage of a frame")),
        }
    }
}

/// Whether a valid header begins like this and goes on: what lies between the two is looked at
/// again with the bytes that follow.
fn is_part_of_header(part: &[u8]) -> bool {
    let goes_on = |role| matches!(Header::decode(part, role, true), Ok(Parsing::NeedMore(_)));
    goes_on(Role::Server) || goes_on(Role::Client)
}

#[derive(Debug)]
struct Partial {
    text: bool,
    compressed: bool,
    /// Frames seen so far, the one under way included.
    fragments: u32,
    /// Of uncompressed text only; compressed text is checked when it is inflated.
    utf8: Utf8Stream,
    /// The unmasked payload so far.
    data: Vec<u8>,
    /// See [`Unfinished::begun`].
    begun: Tick,
    /// See [`Unfinished::grown`].
    grown: Tick,
    /// The bytes of `data` as of then.
    grown_to: usize,
    /// So many bytes of `data` have gone ahead to another process, in a handover.
    ahead: usize,
}

/// What one step found; ranges are of the input.
enum Step {
    /// Everything there is has been consumed.
    NeedMore,
    /// Look again.
    Again,
    WholeMessage {
        text: bool,
        compressed: bool,
        at: Range<usize>,
    },
    Assembled(Box<Partial>),
    WholeControl {
        opcode: Opcode,
        at: Range<usize>,
    },
    AssembledControl(Box<PartialControl>),
}

impl Default for Decoder {
    fn default() -> Self {
        Self { stage: Stage::Between, partial: None }
    }
}

impl Decoder {
    /// Decodes up to the next message or control frame; `None` if the input ends before one does,
    /// in which case all of it was consumed.
    ///
    /// # Errors
    /// The peer's violation; the decoder must not be used after it.
    pub fn decode<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        rules: &Rules,
        inflater: &'e mut Inflater,
        spare: &mut Spare,
    ) -> Result<Option<Incoming<'e>>, ProtocolError> {
        let step = loop {
            match self.step(input, rules, spare)? {
                Step::Again => {}
                Step::NeedMore => return Ok(None),
                step => break step,
            }
        };
        let incoming = match step {
            Step::Again | Step::NeedMore => unreachable!("the loop ends with neither"),
            Step::WholeMessage { text, compressed, at } => {
                let bytes = &input.bytes[at];
                let bytes = if compressed {
                    inflater.inflate(bytes, rules.message_bytes_max)?
                } else {
                    bytes
                };
                Incoming::Message(borrowed_message(text, bytes)?)
            }
            Step::Assembled(partial) if partial.compressed => {
                let Partial { text, data, .. } = *partial;
                let bytes = inflater.inflate(&data, rules.message_bytes_max)?;
                spare.put(data);
                Incoming::Message(borrowed_message(text, bytes)?)
            }
            Step::Assembled(partial) if partial.text => {
                partial.utf8.finish()?;
                let text = String::from_utf8(partial.data);
                let text = text.map_err(|_| ProtocolError::InvalidUtf8)?;
                Incoming::Message(Message::Text(Cow::Owned(text)))
            }
            Step::Assembled(partial) => {
                Incoming::Message(Message::Binary(Cow::Owned(partial.data)))
            }
            Step::WholeControl { opcode, at } => control(opcode, Cow::Borrowed(&input.bytes[at]))?,
            Step::AssembledControl(frame) => control(frame.opcode, Cow::Owned(frame.payload))?,
        };
        Ok(Some(incoming))
    }

    /// Looks for the peer's Close and throws away what comes before it: messages are neither inflated
    /// nor checked, so that a peer cannot make us work for what nobody will see. False if the input
    /// ends before a Close does, in which case all of it was consumed.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), but for those of a message's content.
    #[cold]
    pub fn find_close(
        &mut self,
        input: &mut Input<'_>,
        rules: &Rules,
        spare: &mut Spare,
    ) -> Result<bool, ProtocolError> {
        loop {
            match self.step(input, rules, spare)? {
                Step::NeedMore => return Ok(false),
                Step::WholeControl { opcode: Opcode::Close, .. } => return Ok(true),
                Step::AssembledControl(frame) if frame.opcode == Opcode::Close => return Ok(true),
                Step::Assembled(partial) => spare.put(partial.data),
                Step::Again
                | Step::WholeMessage { .. }
                | Step::WholeControl { .. }
                | Step::AssembledControl(_) => {}
            }
        }
    }

    /// Bytes of memory that the unfinished message takes, and how many bytes of it have arrived.
    pub fn held(&self) -> (usize, usize) {
        self.partial
            .as_ref()
            .map_or((0, 0), |partial| (partial.data.capacity(), partial.data.len()))
    }

    /// Where the next bytes of a large frame belong: whoever reads them from the socket to there
    /// saves a copy, and tells with [`received_direct`](Self::received_direct). `None` if they are
    /// not worth it.
    pub fn direct_room(&mut self) -> Option<DirectRoom<'_>> {
        let Stage::Data { remaining, .. } = self.stage else {
            return None;
        };
        let buffer = &mut self.partial.as_mut()?.data;
        let room = (buffer.capacity() - buffer.len()) as u64;
        let len = room.min(remaining).min(DIRECT_BYTES_MAX) as usize;
        (len >= DIRECT_BYTES_MIN).then_some(DirectRoom { buffer, len })
    }

    /// So many bytes have been appended to [`direct_room`](Self::direct_room). The message that
    /// they may complete comes with the next [`decode`](Self::decode), of an empty input.
    ///
    /// # Errors
    /// Text that is not UTF-8.
    pub fn received_direct(&mut self, len: usize) -> Result<(), ProtocolError> {
        if let Stage::Data { remaining, mask, .. } = &mut self.stage
            && let Some(partial) = &mut self.partial
        {
            *remaining -= len as u64;
            let start = partial.data.len() - len;
            if let Some(mask) = mask {
                mask.apply(&mut partial.data[start..]);
            }
            partial.check_text(len)?;
        }
        Ok(())
    }

    /// Whether [`decode`](Self::decode) has something to give without any input: the last bytes of
    /// a frame were received directly.
    pub fn holds_whole_frame(&self) -> bool {
        matches!(self.stage, Stage::Data { remaining: 0, .. })
    }

    /// What is under way: the message, else the frame.
    pub fn unfinished(&self) -> Option<Unfinished> {
        match (&self.partial, &self.stage) {
            (Some(partial), _) => Some(Unfinished {
                begun: partial.begun,
                grown: partial.grown,
                received: partial.data.len(),
                held: partial.data.capacity(),
            }),
            (None, Stage::Header(part)) => {
                let begun = part.begun;
                Some(Unfinished { begun, grown: begun, received: 0, held: 0 })
            }
            (None, Stage::Control(frame)) => {
                let PartialControl { begun, payload, .. } = &**frame;
                let (received, held) = (0, payload.capacity());
                Some(Unfinished { begun: *begun, grown: *begun, received, held })
            }
            (None, Stage::Between | Stage::Data { .. }) => None,
        }
    }

    /// Notes, after all input has been decoded, when what is under way has begun and has grown.
    #[inline]
    pub fn mark(&mut self, now: Tick) {
        match (&mut self.partial, &mut self.stage) {
            (Some(partial), _) => {
                partial.begun = partial.begun.min(now);
                if partial.data.len() != partial.grown_to {
                    partial.grown_to = partial.data.len();
                    partial.grown = now;
                }
            }
            (None, Stage::Header(part)) => part.begun = now.min(part.begun),
            (None, Stage::Control(frame)) => frame.begun = now.min(frame.begun),
            (None, Stage::Between | Stage::Data { .. }) => {}
        }
    }

    /// We did not read for so long: what is under way gets that time in addition.
    pub fn was_not_read(&mut self, time: Duration) {
        if time.is_zero() {
            return;
        }
        match (&mut self.partial, &mut self.stage) {
            (Some(partial), _) => {
                partial.begun = partial.begun.after(time);
                partial.grown = partial.grown.after(time);
            }
            (None, Stage::Header(part)) => part.begun = part.begun.after(time),
            (None, Stage::Control(frame)) => frame.begun = frame.begun.after(time),
            (None, Stage::Between | Stage::Data { .. }) => {}
        }
    }

    /// Writes all it holds.
    pub fn save(&self, now: Tick, writer: &mut Writer) {
        let Self { stage, partial } = self;
        stage.save(now, writer);
        writer.option(partial.as_deref(), |writer, partial| partial.save(now, writer));
    }

    /// What has come of an unfinished message and has not gone ahead to another process: all but the
    /// last bytes, which may be the beginning of a character.
    pub fn not_ahead(&self) -> &[u8] {
        self.partial.as_ref().map_or(&[], |partial| {
            let end = partial.data.len().saturating_sub(CHARACTER_BYTES_MAX);
            partial.data.get(partial.ahead..end).unwrap_or_default()
        })
    }

    /// How many bytes of the unfinished message have gone ahead. [`save`](Self::save) leaves them
    /// out.
    pub fn ahead(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.ahead)
    }

    /// So many bytes of the unfinished message, from its beginning on, have gone ahead; 0 if nothing
    /// is handed over any more.
    pub fn set_ahead(&mut self, ahead: usize) {
        if let Some(partial) = &mut self.partial {
            partial.ahead = ahead.min(partial.data.len());
        }
    }

    /// Puts what came ahead before what was loaded of an unfinished message; false if there is none.
    pub fn prepend(&mut self, mut ahead: Vec<u8>) -> bool {
        let Some(partial) = &mut self.partial else {
            return false;
        };
        ahead.extend_from_slice(&partial.data);
        partial.data = ahead;
        partial.grown_to = partial.data.len();
        true
    }

    /// Reads what [`Decoder::save`] wrote.
    ///
    /// # Errors
    /// As [`Reader`]; what no bytes of a peer lead to.
    pub fn load(now: Tick, reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let stage = Stage::load(now, reader)?;
        let partial = reader.option(|reader| Partial::load(now, reader))?.map(Box::new);
        if matches!(stage, Stage::Data { .. }) && partial.is_none() {
            return Err(SnapshotError::Invalid("frame without its message"));
        }
        Ok(Self { stage, partial })
    }

    // `find_close` is a second caller, for whose sake the compiler would no longer inline it, and
    // what it calls, into the one that every frame goes through.
    #[inline(always)]
    fn step(
        &mut self,
        input: &mut Input<'_>,
        rules: &Rules,
        spare: &mut Spare,
    ) -> Result<Step, ProtocolError> {
        match &mut self.stage {
            Stage::Between => match Header::decode(input.rest(), rules.role, rules.deflate)? {
                Parsing::Done(header, len) => {
                    input.take(len);
                    self.begin(&header, Tick::NEVER, input, rules)
                }
                Parsing::NeedMore(_) if input.rest().is_empty() => Ok(Step::NeedMore),
                Parsing::NeedMore(_) => {
                    let mut bytes = [0; HEADER_BYTES_MAX];
                    let part = input.take(input.rest().len());
                    bytes[..part.len()].copy_from_slice(&input.bytes[part.clone()]);
                    let (have, begun) = (part.len() as u8, Tick::NEVER);
                    self.stage = Stage::Header(Box::new(PartialHeader { bytes, have, begun }));
                    Ok(Step::NeedMore)
                }
            },
            Stage::Header(part) => {
                let Some(header) = part.complete(input, rules)? else {
                    return Ok(Step::NeedMore);
                };
                let begun = part.begun;
                self.stage = Stage::Between;
                self.begin(&header, begun, input, rules)
            }
            Stage::Data { remaining, mask, fin } => {
                let partial = self.partial.as_mut().expect("begun with the stage");
                let len = (input.rest().len() as u64).min(*remaining) as usize;
                partial.make_room(len, *remaining, *fin, rules, spare);
                let piece = input.take(len);
                append(&mut partial.data, mask, &input.bytes[piece]);
                partial.check_text(len)?;
                *remaining -= len as u64;
                if *remaining > 0 {
                    return Ok(Step::NeedMore);
                }
                let fin = *fin;
                self.stage = Stage::Between;
                Ok(self.partial.take_if(|_| fin).map_or(Step::Again, Step::Assembled))
            }
            Stage::Control(frame) => {
                let missing = usize::from(frame.len) - frame.payload.len();
                let piece = input.take(missing.min(input.rest().len()));
                append(&mut frame.payload, &mut frame.mask, &input.bytes[piece]);
                if frame.payload.len() < usize::from(frame.len) {
                    return Ok(Step::NeedMore);
                }
                match std::mem::replace(&mut self.stage, Stage::Between) {
                    Stage::Control(frame) => Ok(Step::AssembledControl(frame)),
                    _ => unreachable!("matched above"),
                }
            }
        }
    }

    #[inline(always)]
    fn begin(
        &mut self,
        header: &Header,
        begun: Tick,
        input: &mut Input<'_>,
        rules: &Rules,
    ) -> Result<Step, ProtocolError> {
        match header.opcode.is_control() {
            true => Ok(self.begin_control(header, begun, input)),
            false => self.begin_data(header, begun, input, rules),
        }
    }

    fn begin_control(&mut self, header: &Header, begun: Tick, input: &mut Input<'_>) -> Step {
        let len = header.len as usize;
        let mut mask = header.mask.map(Mask::new);
        if input.rest().len() >= len {
            let at = input.take(len);
            if let Some(mask) = &mut mask {
                mask.apply(&mut input.bytes[at.clone()]);
            }
            return Step::WholeControl { opcode: header.opcode, at };
        }
        self.stage = Stage::Control(Box::new(PartialControl {
            opcode: header.opcode,
            len: header.len as u8,
            mask,
            payload: Vec::new(),
            begun,
        }));
        Step::Again
    }

    #[inline(always)]
    fn begin_data(
        &mut self,
        header: &Header,
        begun: Tick,
        input: &mut Input<'_>,
        rules: &Rules,
    ) -> Result<Step, ProtocolError> {
        let first = header.opcode != Opcode::Continuation;
        let (so_far, compressed) = match &mut self.partial {
            Some(_) if first => return Err(ProtocolError::ExpectedContinuation),
            None if !first => return Err(ProtocolError::UnexpectedContinuation),
            Some(partial) => {
                partial.fragments += 1;
                if partial.fragments > rules.fragments_max {
                    return Err(ProtocolError::TooManyFragments);
                }
                (partial.data.len() as u64, partial.compressed)
            }
            None => (0, header.rsv1),
        };
        if header.len.saturating_add(so_far) > rules.wire_bytes_max(compressed) {
            return Err(ProtocolError::MessageTooBig);
        }
        let text = header.opcode == Opcode::Text;
        let mut mask = header.mask.map(Mask::new);
        if first && header.fin && header.len <= input.rest().len() as u64 {
            let at = input.take(header.len as usize);
            if let Some(mask) = &mut mask {
                mask.apply(&mut input.bytes[at.clone()]);
            }
            return Ok(Step::WholeMessage { text, compressed, at });
        }
        if first {
            self.partial = Some(Box::new(Partial {
                text,
                compressed,
                fragments: 1,
                utf8: Utf8Stream::default(),
                data: Vec::new(),
                begun,
                grown: begun,
                grown_to: 0,
                ahead: 0,
            }));
        }
        self.stage = Stage::Data { remaining: header.len, mask, fin: header.fin };
        Ok(Step::Again)
    }
}

impl Partial {
    fn save(&self, now: Tick, writer: &mut Writer) {
        let Self { text, compressed, fragments, utf8, data, begun, grown, grown_to: _, ahead } =
            self;
        writer.bool(*text);
        writer.bool(*compressed);
        writer.u32(*fragments);
        utf8.save(writer);
        writer.bytes(&data[*ahead..]);
        writer.past(*begun, now);
        writer.past(*grown, now);
    }

    /// The room that was there for the rest comes back with the next bytes.
    fn load(now: Tick, reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (text, compressed) = (reader.bool()?, reader.bool()?);
        let fragments = reader.u32()?;
        if fragments == 0 || fragments == u32::MAX {
            return Err(SnapshotError::Invalid("number of fragments"));
        }
        let utf8 = Utf8Stream::load(reader)?;
        let data = reader.bytes()?.to_vec();
        let carry = utf8.carry();
        if !data.ends_with(carry) || (!carry.is_empty() && (!text || compressed)) {
            return Err(SnapshotError::Invalid("end of a part of a text"));
        }
        let (begun, grown, grown_to) = (reader.past(now)?, reader.past(now)?, data.len());
        Ok(Self { text, compressed, fragments, utf8, data, begun, grown, grown_to, ahead: 0 })
    }

    /// Sees to room for `len` bytes more, of the `remaining` ones of the frame under way.
    ///
    /// A length that is only declared allocates nothing: a frame gets its memory in one piece once
    /// an eighth of it is there. Until then, and as long as further frames may follow, the room is
    /// doubled. So the moves of a message come to at most three times its bytes: the sizes at which
    /// it is moved are less than half of one another, but for one move to the largest size that a
    /// message may have, and one to the final size, which the last frame tells.
    fn make_room(
        &mut self,
        len: usize,
        remaining: u64,
        fin: bool,
        rules: &Rules,
        spare: &mut Spare,
    ) {
        let needed = self.data.len() + len;
        if needed <= self.data.capacity() {
            return;
        }
        let whole = self.data.len() as u64 + remaining;
        let (doubled, known) = (2 * needed as u64, needed as u64 >= whole / 8);
        let target = match fin && known {
            true => whole,
            false if known => doubled.max(whole).min(rules.wire_bytes_max(self.compressed)),
            false => doubled,
        };
        spare.grow(&mut self.data, needed.max(target as usize));
    }

    /// Checks the last `len` bytes, as far as that can be done before all is there.
    fn check_text(&mut self, len: usize) -> Result<(), ProtocolError> {
        if self.text && !self.compressed {
            self.utf8.push(&self.data[self.data.len() - len..])?;
        }
        Ok(())
    }
}

fn append(out: &mut Vec<u8>, mask: &mut Option<Mask>, piece: &[u8]) {
    match mask {
        Some(mask) => mask.apply_into(out, piece),
        None => out.extend_from_slice(piece),
    }
}

fn borrowed_message(text: bool, bytes: &[u8]) -> Result<Message<'_>, ProtocolError> {
    Ok(if text {
        Message::Text(Cow::Borrowed(utf8::check(bytes)?))
    } else {
        Message::Binary(Cow::Borrowed(bytes))
    })
}

fn control(opcode: Opcode, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, ProtocolError> {
    Ok(match opcode {
        Opcode::Ping => Incoming::Ping(payload),
        Opcode::Pong => Incoming::Pong(payload),
        _ => Incoming::Close(CloseFrame::decode(&payload)?),
    })
}

#[cfg(test)]
mod tests;
