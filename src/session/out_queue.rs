//! What waits to be written to one socket.
//!
//! Two parts, the older first: the *backlog*, bytes that the socket did not take or frames too
//! large to be copied, in memory of their own; and the *turn range*, what the turn of the loop has
//! produced for this connection, which lies in the worker's [`Turn`]. A connection that keeps up
//! never has a backlog: its frames of one turn leave in one write from the shared buffer, and
//! between turns it owns no memory at all.
//!
//! Work per byte is bounded: a byte is copied once to the turn's buffer and at most once more to the
//! backlog. A write looks at no more than 32 pieces, whatever waits behind them.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::ops::Range;

use super::turn::Turn;
use crate::base::meter::Meter;
use crate::base::shared::{Bodies, SharedBytes};
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::base::spare::Spare;
use crate::ws::header::{EncodedHeader, Header};
use crate::ws::{Opcode, encode};

/// Chunks of copied bytes grow up to this size; a pending pong waits for the end of one at most.
const CHUNK_BYTES: usize = 16 * 1024;

/// Chunks of so many bytes are worth going ahead of their queue to another process.
const SHARED_BYTES_MIN: usize = 4 * 1024;

/// Most pieces handed to one vectored write.
const PIECES_MAX: usize = 32;

/// The bytes waiting for one socket.
#[derive(Debug, Default)]
pub struct OutQueue {
    backlog: Option<Box<Backlog>>,
    turn_start: u32,
    turn_end: u32,
}

/// Invariant: every chunk begins at a frame's boundary, except the first one, of which `sent`
/// bytes are gone.
#[derive(Debug, Default)]
struct Backlog {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that the socket has taken.
    sent: usize,
    /// The first chunk must not be overtaken: it begins in the middle of a frame, or with the
    /// answer to the handshake.
    torn: bool,
    /// The socket has been found to take no more.
    blocked: bool,
    /// Unsent bytes of all chunks.
    bytes: usize,
    /// Bytes of all chunks that nobody else has, sent or not.
    owned: usize,
    /// Bytes of all chunks that are shared, sent or not.
    shared: usize,
    /// A whole control frame that overtakes at the next boundary between chunks.
    urgent: Vec<u8>,
}

/// Whole frames: a header and a payload, or any number of encoded frames in the body alone.
#[derive(Debug)]
struct Chunk {
    header: Option<EncodedHeader>,
    body: Body,
}

/// The bytes of a large payload, or of frames.
#[derive(Debug)]
pub enum Body {
    /// Of this connection alone.
    Owned(Vec<u8>),
    /// The same for every receiver of a room's message.
    Shared(SharedBytes),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Chunk {
    fn len(&self) -> usize {
        self.header.map_or(0, |header| header.len()) + self.body.bytes().len()
    }
}

/// What one attempt to write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing waits any more.
    Empty,
    /// The socket takes no more for now.
    Blocked,
}

impl OutQueue {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        let backlog =
            self.backlog.as_ref().map_or(0, |backlog| backlog.bytes + backlog.urgent.len());
        backlog + (self.turn_end - self.turn_start) as usize
    }

    /// Bytes of memory that what waits takes: those of this queue alone, and those it shares.
    pub fn held(&self) -> (usize, usize) {
        self.backlog
            .as_ref()
            .map_or((0, 0), |backlog| (backlog.owned + backlog.urgent.capacity(), backlog.shared))
    }

    /// Gives up what waits; returns whether another frame may follow what the socket has taken. It
    /// may not in the middle of a frame.
    pub fn give_up(&mut self) -> bool {
        let between = |backlog: &Backlog| !backlog.torn && backlog.sent == 0;
        let may_follow = self.backlog.as_deref().is_none_or(between);
        self.clear();
        may_follow
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.turn_start == self.turn_end && self.backlog.is_none()
    }

    /// Whether the socket has been found to take no more.
    pub fn is_blocked(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.blocked)
    }

    /// Queues the answer to a handshake: the first bytes of all, and no frame may overtake them.
    pub fn push_answer(&mut self, answer: &[u8]) {
        debug_assert!(self.is_empty(), "nothing comes before the answer");
        if !answer.is_empty() {
            let backlog = self.backlog.get_or_insert_default();
            backlog.append(answer);
            backlog.torn = true;
        }
    }

    /// Queues a range of the turn: whole frames. Ranges that follow each other become one.
    #[inline]
    pub fn push(&mut self, turn: &Turn, range: Range<u32>) {
        if self.turn_end == range.start && self.turn_start != self.turn_end {
            self.turn_end = range.end;
            return;
        }
        self.spill(turn);
        (self.turn_start, self.turn_end) = (range.start, range.end);
    }

    /// Queues a message or control frame: in the turn's buffer if that takes it, else in memory of
    /// its own.
    // Every reply goes through it, from few places; left to itself, the compiler makes a call of it.
    #[inline(always)]
    pub fn push_frame(
        &mut self,
        turn: &mut Turn,
        opcode: Opcode,
        rsv1: bool,
        payload: Cow<'_, [u8]>,
    ) {
        match turn.append_frame(opcode, rsv1, &payload) {
            Some(range) => self.push(turn, range),
            None => self.push_own_frame(turn, opcode, rsv1, payload.into_owned()),
        }
    }

    /// A frame that the turn's buffer does not take.
    #[cold]
    fn push_own_frame(
        &mut self,
        turn: &mut Turn,
        opcode: Opcode,
        rsv1: bool,
        mut payload: Vec<u8>,
    ) {
        let header = turn.header(opcode, rsv1, payload.len());
        Turn::mask_payload(&header, &mut payload);
        self.push_large(turn, Some(header.encode()), Body::Owned(payload));
    }

    /// Queues bytes that are no frame: the answer to a request, with nothing before it.
    pub fn push_bytes(&mut self, turn: &Turn, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.push_large(turn, None, Body::Owned(bytes));
        }
    }

    /// Queues a frame that is not copied.
    pub fn push_large(&mut self, turn: &Turn, header: Option<EncodedHeader>, body: Body) {
        self.spill(turn);
        let backlog = self.backlog.get_or_insert_default();
        backlog.push(Chunk { header, body });
    }

    /// Queues a control frame ahead of the backlog's data frames, in place of one that is still
    /// waiting there.
    pub fn replace_urgent(&mut self, header: Header, payload: &[u8]) {
        let backlog = self.backlog.get_or_insert_default();
        backlog.urgent.clear();
        encode::frame(&mut backlog.urgent, header, payload);
    }

    /// Lets a control frame that waits to overtake go the way of all others.
    pub fn settle(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            let frame = std::mem::take(&mut backlog.urgent);
            if !frame.is_empty() {
                backlog.append(&frame);
            }
        }
    }

    /// Copies the turn's range to the backlog, so that the turn's buffer can be cleared.
    pub fn spill(&mut self, turn: &Turn) {
        let range = self.take_turn_range();
        if !range.is_empty() {
            self.backlog.get_or_insert_default().append(turn.slice(range));
        }
    }

    /// Leaves an empty range, one that is valid in a cleared buffer too.
    fn take_turn_range(&mut self) -> Range<u32> {
        std::mem::take(&mut self.turn_start)..std::mem::take(&mut self.turn_end)
    }

    /// Writes what waits, with the boundaries that control frames may overtake at.
    ///
    /// # Panics
    /// If something lies in the turn's buffer: it is to be [spilled](Self::spill) first.
    pub fn save(&self, writer: &mut Writer) {
        let Self { backlog, turn_start, turn_end } = self;
        assert!(turn_start == turn_end, "what a turn made is spilled before a queue is saved");
        let backlog = backlog.as_deref();
        writer.option(backlog.filter(|backlog| !backlog.is_empty()), |writer, backlog| {
            backlog.save(writer);
        });
    }

    /// Reads what [`OutQueue::save`] wrote.
    ///
    /// # Errors
    /// As [`Reader`]; a queue that cannot be.
    pub fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let backlog = reader.option(Backlog::load)?.map(Box::new);
        Ok(Self { backlog, turn_start: 0, turn_end: 0 })
    }

    /// Tells of every large piece that waits, which [`save`](Self::save) names and does not write, so
    /// that it can go ahead. Those that were of this queue alone are shared from now on, and count
    /// with `meter`.
    pub fn share(&mut self, meter: &Meter, mut tell: impl FnMut(&SharedBytes)) {
        if let Some(backlog) = &mut self.backlog {
            backlog.share(meter, &mut tell);
        }
    }

    /// Bytes that [`save`](Self::save) takes, all but some for each piece, for a reader that has been
    /// given these bodies.
    pub fn bytes_to_save(&self, given: &Bodies) -> usize {
        let Some(backlog) = &self.backlog else { return 0 };
        let to_save = |chunk: &Chunk| match &chunk.body {
            Body::Shared(bytes) if given.has(bytes) => 0,
            body => body.bytes().len(),
        };
        backlog.urgent.len() + backlog.chunks.iter().map(to_save).sum::<usize>()
    }

    /// Gives up everything that waits.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes what the socket takes. Afterwards nothing of it lies in the turn's buffer.
    ///
    /// # Errors
    /// Those of the socket, except `WouldBlock` and `Interrupted`.
    pub fn flush(&mut self, turn: &mut Turn, socket: &mut impl Write) -> io::Result<Flushed> {
        if self.backlog.is_none() {
            return self.flush_turn(turn, socket);
        }
        self.spill(turn);
        let flushed = self.flush_backlog(socket, turn.spare())?;
        if flushed == Flushed::Empty {
            self.backlog = None;
        }
        Ok(flushed)
    }

    /// The common case: one write straight from the turn's buffer.
    fn flush_turn(&mut self, turn: &Turn, socket: &mut impl Write) -> io::Result<Flushed> {
        let mut bytes = turn.slice(self.take_turn_range());
        let whole = bytes.len();
        while !bytes.is_empty() {
            match socket.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let backlog = self.backlog.get_or_insert_default();
                    backlog.torn = bytes.len() < whole;
                    backlog.blocked = true;
                    backlog.append(bytes);
                    return Ok(Flushed::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::Empty)
    }

    fn flush_backlog(&mut self, socket: &mut impl Write, spare: &mut Spare) -> io::Result<Flushed> {
        let Some(backlog) = &mut self.backlog else {
            return Ok(Flushed::Empty);
        };
        loop {
            backlog.settle_urgent();
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let count = backlog.gather(&mut pieces);
            if count == 0 {
                return Ok(Flushed::Empty);
            }
            match socket.write_vectored(&pieces[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => backlog.advance(len, spare),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    backlog.blocked = true;
                    return Ok(Flushed::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.bytes == 0 && self.urgent.is_empty()
    }

    /// Writes what the socket has not taken: what is left of a first chunk begins, as far as anybody
    /// can tell, in the middle of a frame. Shared bytes stay so, with how many of them are gone.
    fn save(&self, writer: &mut Writer) {
        let Self { chunks, sent, torn, blocked, bytes: _, owned: _, shared: _, urgent } = self;
        writer.bool(*torn || *sent > 0);
        writer.bool(*blocked);
        writer.count(chunks.len());
        let mut skip = *sent;
        for chunk in chunks {
            let gone = std::mem::take(&mut skip);
            let header = chunk.header.as_deref().unwrap_or_default();
            match &chunk.body {
                Body::Shared(bytes) => {
                    writer.bool(true);
                    writer.shared(bytes);
                    writer.bytes(header);
                    writer.count(gone);
                }
                Body::Owned(bytes) => {
                    writer.bool(false);
                    writer.count(chunk.len() - gone);
                    writer.raw(&header[gone.min(header.len())..]);
                    writer.raw(&bytes[gone.saturating_sub(header.len())..]);
                }
            }
        }
        writer.bytes(urgent);
    }

    fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        const INVALID: SnapshotError = SnapshotError::Invalid("part of an out queue");
        let (torn, blocked) = (reader.bool()?, reader.bool()?);
        let mut loaded = Self { torn, blocked, ..Self::default() };
        // What it is, and a length and a byte each.
        for index in 0..reader.count(3)? {
            let chunk = match reader.bool()? {
                false => Chunk { header: None, body: Body::Owned(reader.bytes()?.to_vec()) },
                true => {
                    let body = Body::Shared(reader.shared()?);
                    let header = Some(reader.bytes()?).filter(|header| !header.is_empty());
                    let header =
                        header.map(|header| EncodedHeader::from_bytes(header).ok_or(INVALID));
                    let chunk = Chunk { header: header.transpose()?, body };
                    let gone = usize::try_from(reader.varint()?).map_err(|_| INVALID)?;
                    if gone >= chunk.len() || (gone > 0 && (index > 0 || !torn)) {
                        return Err(INVALID);
                    }
                    loaded.sent += gone;
                    chunk
                }
            };
            if chunk.body.bytes().is_empty() {
                return Err(INVALID);
            }
            loaded.push(chunk);
        }
        loaded.bytes -= loaded.sent;
        loaded.urgent = reader.bytes()?.to_vec();
        if loaded.is_empty() || (loaded.torn && loaded.chunks.is_empty()) {
            return Err(SnapshotError::Invalid("out queue"));
        }
        Ok(loaded)
    }

    fn share(&mut self, meter: &Meter, tell: &mut impl FnMut(&SharedBytes)) {
        for Chunk { body, .. } in &mut self.chunks {
            if let Body::Owned(bytes) = body
                && bytes.len() >= SHARED_BYTES_MIN
            {
                self.owned -= bytes.len();
                self.shared += bytes.len();
                *body = Body::Shared(SharedBytes::new(std::mem::take(bytes), meter));
            }
            if let Body::Shared(bytes) = body {
                tell(bytes);
            }
        }
    }

    fn push(&mut self, chunk: Chunk) {
        self.count_in(&chunk);
        self.chunks.push_back(chunk);
    }

    fn count_in(&mut self, chunk: &Chunk) {
        self.bytes += chunk.len();
        match &chunk.body {
            Body::Owned(bytes) => self.owned += bytes.len(),
            Body::Shared(bytes) => self.shared += bytes.len(),
        }
    }

    /// Appends encoded frames, to the last chunk as long as that stays small.
    fn append(&mut self, bytes: &[u8]) {
        if let Some(Chunk { header: None, body: Body::Owned(last) }) = self.chunks.back_mut()
            && last.len() + bytes.len() <= CHUNK_BYTES
        {
            last.extend_from_slice(bytes);
            self.bytes += bytes.len();
            self.owned += bytes.len();
            return;
        }
        self.push(Chunk { header: None, body: Body::Owned(bytes.to_vec()) });
    }

    /// At a boundary between frames the urgent frame goes to the front.
    fn settle_urgent(&mut self) {
        if !self.urgent.is_empty() && self.sent == 0 && !self.torn {
            let frame = std::mem::take(&mut self.urgent);
            let chunk = Chunk { header: None, body: Body::Owned(frame) };
            self.count_in(&chunk);
            self.chunks.push_front(chunk);
        }
    }

    /// Collects what is to be written next, up to where an urgent frame has to go.
    fn gather<'s>(&'s self, pieces: &mut [IoSlice<'s>; PIECES_MAX]) -> usize {
        let mut count = 0;
        let mut skip = self.sent;
        let chunks = if self.urgent.is_empty() { self.chunks.len() } else { 1 };
        for chunk in self.chunks.iter().take(chunks) {
            let header = chunk.header.as_deref().unwrap_or_default();
            for part in [header, chunk.body.bytes()] {
                let sent = skip.min(part.len());
                skip -= sent;
                if sent < part.len() {
                    pieces[count] = IoSlice::new(&part[sent..]);
                    count += 1;
                }
            }
            if count + 2 > PIECES_MAX {
                break;
            }
        }
        count
    }

    fn advance(&mut self, written: usize, spare: &mut Spare) {
        self.bytes -= written;
        self.sent += written;
        while let Some(first) = self.chunks.front() {
            if self.sent < first.len() {
                break;
            }
            self.sent -= first.len();
            self.torn = false;
            match self.chunks.pop_front().map(|chunk| chunk.body) {
                Some(Body::Owned(bytes)) => {
                    self.owned -= bytes.len();
                    spare.put(bytes);
                }
                Some(Body::Shared(bytes)) => self.shared -= bytes.len(),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
