//! Every limit a peer can run into: its name, its default and the reason for it.
//!
//! [`HeadLimits`] hold before a route is known; [`Limits`] belong to a route. Sizes are bytes,
//! times are [`Duration`]s (the timers behind them tick every 100 ms and round up). How a limit is
//! added: `base::setting`.

use std::time::Duration;

use super::setting::{Section, settings};
use super::syntax::{COUNT_MAX, Count, GIB, KIB, MIB, Or, Size, Time};

settings! {
    /// What a request head may cost, before it is known which route it is for.
    pub struct HeadLimits, "head." of Server {
        /// Longest request head, from the method to the blank line.
        head_bytes_max: usize as Size(256, MIB), default 16 * KIB as usize,
            because "cookies of browsers come to 8 KiB and more", beyond "431";
        /// Longest request target; at most `head.head_bytes_max`.
        target_bytes_max: usize as Size(1, MIB), default 8_000,
            because "what RFC 9110 §4.1 recommends to support", beyond "414";
        /// Most header fields.
        headers_max: usize as Count(1, 10_000), default 100,
            because "as the large HTTP servers have it", beyond "431";
        /// Time from accept to a complete head, in total: a drip of bytes does not extend it.
        handshake_timeout: Duration as Time { zero: false }, default Duration::from_secs(10),
            because "a half-open handshake holds a descriptor", beyond "the connection is closed";
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self::initial()
    }
}

settings! {
    /// What one open connection of a route may cost.
    pub struct Limits, "limits." of Both {
        /// Longest message after reassembly and inflation.
        message_bytes_max: usize as Size(1, GIB), default MIB as usize,
            because "a message is held in memory as a whole", beyond "1009";
        /// Most fragments of one message.
        fragments_max: u32 as Count(1, COUNT_MAX), default 1_024,
            because "bounds what endless empty fragments cost", beyond "1008";
        /// Most bytes waiting in a connection's out queue. An empty queue always admits one maximal
        /// message.
        queue_bytes_max: usize as Size(1, GIB), default MIB as usize,
            because "one slow reader must not hold the server's memory",
            beyond "a reply pauses reading from that peer; a push closes it with 1008";
        /// A peer silent for this long is sent a ping.
        ping_interval: Option<Duration> as Or("off", Time { zero: false }),
            default Some(Duration::from_secs(25)),
            because "below the 30 s and 60 s after which common proxies drop an idle connection",
            beyond "a ping is sent";
        /// After a ping, the time for an inbound byte or outbound progress. Suspended while reading
        /// from the peer is paused.
        pong_timeout: Duration as Time { zero: false }, default Duration::from_secs(10),
            because "a dead peer is noticed within 35 s", beyond "the connection is dropped";
        /// The time without a message in either direction after which a connection is closed.
        idle_timeout: Option<Duration> as Or("off", Time { zero: false }), default None,
            because "quiet is normal for most apps, and pings find the dead", beyond "1001";
        /// The time for the peer to answer our Close and to finish TCP.
        close_timeout: Duration as Time { zero: false }, default Duration::from_secs(5),
            because "a round trip and a retransmission, with room", beyond "the socket is dropped";
        /// The least a peer has to send of a message it has begun, in bytes a second: it must be
        /// complete within 60 s and the time that its bytes take at this rate. The time in which the
        /// server does not read does not count.
        progress_rate_min: usize as Size(1, GIB), default 4 * KIB as usize,
            because "an unfinished message is held in memory; a slow phone sends ten times as fast",
            beyond "1008";
        /// The time in which a peer has to take a byte of what waits for it. The pause of an upgrade
        /// does not count.
        write_timeout: Option<Duration> as Or("off", Time { zero: false }),
            default Some(Duration::from_secs(60)),
            because "what waits is held in memory, and a peer that does not read may answer pings",
            beyond "the connection is dropped";
        /// Control frames a second a peer may send.
        control_rate_max: Option<u32> as Or("off", Count(1, COUNT_MAX)), default Some(100),
            because "each asks for an answer; honest clients send one in seconds", beyond "1008";
        /// Messages a second a peer may send.
        message_rate_max: Option<u32> as Or("off", Count(1, COUNT_MAX)), default None,
            because "what is sane depends on the app", beyond "1008";
        /// Rooms one connection may be in.
        rooms_max: usize as Count(1, COUNT_MAX), default 128,
            because "bounds what leaving them costs", beyond "the join is refused";
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::initial()
    }
}

/// Longest name of a room or channel, in bytes. 255: a file name's bound, and it keeps a
/// membership small.
pub const ROOM_NAME_BYTES_MAX: usize = 255;
