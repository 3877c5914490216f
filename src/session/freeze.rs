//! What a handover needs of a session: to hold still (freeze), to become bytes, and to go on from
//! them in another process as if nothing had happened.
//!
//! Points in time are written as their distance from the moment of saving: the reader has another
//! clock.

use std::time::Duration;

use crate::base::DeflateParams;
use crate::base::limits::Limits;
use crate::base::meter::Meter;
use crate::base::rate::RateLimit;
use crate::base::shared::{Bodies, SharedBytes};
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::base::tick::Tick;
use crate::ws::{CloseFrame, Decoder};

use super::delivery::Delivery;
use super::out_queue::OutQueue;
use super::partial_head::PartialHead;
use super::turn::Turn;
use super::{LINGER_BYTES_MAX, Session, State};

impl Session {
    /// Stands in for the session of a connection whose descriptor has arrived and whose state has
    /// not: it reads nothing, waits for nothing, and is done if nothing comes.
    pub fn vacant() -> Self {
        Self {
            state: State::Done,
            out: OutQueue::default(),
            parked: None,
            deflate: None,
            paused: false,
            control_rate: RateLimit::new(),
            message_rate: RateLimit::new(),
            last_inbound: Tick::START,
            last_outbound: Tick::START,
            last_message: Tick::START,
            pinged: Tick::NEVER,
            deadline: Tick::NEVER,
        }
    }

    /// Copies what waits in the turn's buffer out of it, so that it can stay unwritten while the
    /// buffer is used again.
    pub fn spill(&mut self, turn: &Turn) {
        self.out.spill(turn);
    }

    /// Queues a message that many receivers get, even if the queue has no room: while the sockets
    /// are not written to, nobody is a slow consumer.
    pub fn deliver_unbounded(&mut self, delivery: &Delivery, turn: &Turn, now: Tick) {
        if self.is_open() {
            self.last_message = now;
            delivery.queue(&mut self.out, self.deflate.is_some(), turn);
        }
    }

    /// The worker was frozen for so long, and neither read nor wrote: that time counts for nobody.
    pub fn was_frozen(&mut self, time: Duration) {
        self.was_not_read(time);
        if self.out.is_blocked() && !time.is_zero() {
            self.last_outbound = self.last_outbound.after(time);
        }
    }

    /// Whether it is open and has nothing to do until something comes in, is to be sent, or is due.
    pub fn is_at_rest(&self) -> bool {
        matches!(&self.state, State::Open(decoder) if !decoder.holds_whole_frame())
            && self.out.is_empty()
            && self.parked.is_none()
            && !self.paused
    }

    /// Whether it is open and may well stay as it is for a while: what it has to send, its peer does
    /// not take.
    pub fn is_still(&self) -> bool {
        let is_blocked = self.out.is_empty() || self.out.is_blocked();
        is_blocked
            && matches!(&self.state, State::Open(decoder) if !decoder.holds_whole_frame())
            && (self.parked.is_none() || self.paused)
    }

    /// What has come of an unfinished message and may go ahead to another process.
    pub fn not_ahead(&self) -> &[u8] {
        match &self.state {
            State::Open(decoder) => decoder.not_ahead(),
            _ => &[],
        }
    }

    /// How many bytes of an unfinished message have gone ahead: [`save`](Self::save) leaves them out.
    pub fn ahead(&self) -> usize {
        match &self.state {
            State::Open(decoder) | State::Closing(decoder, _) => decoder.ahead(),
            _ => 0,
        }
    }

    /// See [`Decoder::set_ahead`].
    pub fn set_ahead(&mut self, ahead: usize) {
        if let State::Open(decoder) | State::Closing(decoder, _) = &mut self.state {
            decoder.set_ahead(ahead);
        }
    }

    /// Puts what came ahead before what was loaded of an unfinished message; false if there is none.
    pub fn prepend(&mut self, ahead: Vec<u8>) -> bool {
        match &mut self.state {
            State::Open(decoder) | State::Closing(decoder, _) => decoder.prepend(ahead),
            _ => false,
        }
    }

    /// Bytes that saving it takes, all but some hundred, for a reader that has been given these
    /// bodies.
    pub fn bytes_to_save(&self, given: &Bodies) -> usize {
        let parked = self.parked.as_ref().map_or(0, |parked| parked.len());
        self.not_ahead().len() + parked + self.out.bytes_to_save(given)
    }

    /// See [`OutQueue::share`].
    pub fn share_queue(&mut self, meter: &Meter, tell: impl FnMut(&SharedBytes)) {
        self.out.share(meter, tell);
    }

    /// Whether something waits to be written.
    pub fn has_queue(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether our Close waits for the peer's: the app has not been told of the end yet.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(..))
    }

    /// Whether the request head is with the caller, who has not answered it.
    pub fn is_deciding(&self) -> bool {
        matches!(self.state, State::Deciding)
    }

    /// Writes all that it is. `limits` are those of its route.
    ///
    /// # Panics
    /// If something lies in the turn's buffer: it is to be [spilled](Self::spill) first.
    pub fn save(&self, limits: &Limits, now: Tick, writer: &mut Writer) {
        let Self {
            state,
            out,
            parked,
            deflate,
            paused,
            control_rate,
            message_rate,
            last_inbound,
            last_outbound,
            last_message,
            pinged,
            deadline,
        } = self;
        state.save(*deadline, now, writer);
        out.save(writer);
        writer.bytes(parked.as_deref().map_or(&[], Vec::as_slice));
        writer.option(*deflate, |writer, deflate| deflate.save(writer));
        writer.bool(*paused);
        // Without a rate nothing is used up.
        control_rate.save(now, limits.control_rate_max.unwrap_or(0), writer);
        message_rate.save(now, limits.message_rate_max.unwrap_or(0), writer);
        for past in [last_inbound, last_outbound, last_message] {
            writer.past(*past, now);
        }
        let pinged = Some(*pinged).filter(|&pinged| pinged != Tick::NEVER);
        writer.option(pinged, |writer, pinged| writer.past(pinged, now));
    }

    /// Reads what [`Session::save`] wrote; `now` is the reader's own time. What lies further back
    /// than the reader's clock reaches counts as its start.
    ///
    /// A deadline may have passed already: then it is due at once, and it is for the caller to read
    /// first what has arrived meanwhile.
    ///
    /// # Errors
    /// As [`Reader`]; what no session can be.
    pub fn load(now: Tick, reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (state, deadline) = State::load(now, reader)?;
        let out = OutQueue::load(reader)?;
        // Nothing comes before the answer to the request, and nothing behind our FIN.
        let silent =
            matches!(state, State::Head(_) | State::Deciding | State::Lingering { shut: true, .. });
        if silent && !out.is_empty() {
            return Err(SnapshotError::Invalid("out queue: nothing may wait"));
        }
        let parked = reader.bytes()?;
        Ok(Self {
            state,
            out,
            parked: (!parked.is_empty()).then(|| Box::new(parked.to_vec())),
            deflate: reader.option(DeflateParams::load)?,
            paused: reader.bool()?,
            control_rate: RateLimit::load(now, reader)?,
            message_rate: RateLimit::load(now, reader)?,
            last_inbound: reader.past(now)?,
            last_outbound: reader.past(now)?,
            last_message: reader.past(now)?,
            pinged: reader.option(|reader| reader.past(now))?.unwrap_or(Tick::NEVER),
            deadline,
        })
    }
}

impl State {
    fn save(&self, deadline: Tick, now: Tick, writer: &mut Writer) {
        match self {
            Self::Head(partial) => {
                writer.u8(0);
                partial.save(writer);
            }
            Self::Deciding => writer.u8(1),
            Self::Open(decoder) => {
                writer.u8(2);
                decoder.save(now, writer);
                return;
            }
            Self::Closing(decoder, sent) => {
                writer.u8(3);
                decoder.save(now, writer);
                sent.save(writer);
            }
            Self::Lingering { discarded, shut, peer_finished } => {
                writer.u8(4);
                writer.count(*discarded);
                writer.bool(*shut);
                writer.bool(*peer_finished);
            }
            Self::Done => {
                writer.u8(5);
                return;
            }
        }
        writer.future(deadline, now);
    }

    /// The state, and until when it may last: always, where that does not depend on it.
    fn load(now: Tick, reader: &mut Reader<'_>) -> Result<(Self, Tick), SnapshotError> {
        let state = match reader.u8()? {
            0 => Self::Head(Box::new(PartialHead::load(reader)?)),
            1 => Self::Deciding,
            2 => return Ok((Self::Open(Decoder::load(now, reader)?), Tick::NEVER)),
            3 => Self::Closing(Decoder::load(now, reader)?, Box::new(CloseFrame::load(reader)?)),
            4 => Self::Lingering {
                discarded: load_discarded(reader)?,
                shut: reader.bool()?,
                peer_finished: reader.bool()?,
            },
            5 => return Ok((Self::Done, Tick::NEVER)),
            _ => return Err(SnapshotError::Invalid("state of a session")),
        };
        Ok((state, reader.future(now)?))
    }
}

fn load_discarded(reader: &mut Reader<'_>) -> Result<usize, SnapshotError> {
    usize::try_from(reader.varint()?)
        .ok()
        .filter(|&discarded| discarded <= LINGER_BYTES_MAX)
        .ok_or(SnapshotError::Invalid("number of discarded bytes"))
}
