//! Every limit a peer can run into: its name, its default and the reason for it.
//!
//! [`HeadLimits`] hold before a route is known; [`Limits`] belong to a route. Sizes are bytes,
//! times are [`Duration`]s (the timers behind them tick every 100 ms and round up).

use std::time::Duration;

/// What a request head may cost, before it is known which route it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadLimits {
    /// Longest request head, from the method to the blank line, in bytes; beyond it 431.
    /// 16 KiB: cookies of browsers come to 8 KiB and more.
    pub head_bytes_max: usize,
    /// Longest request target in bytes; beyond it 414. 8,000 is what RFC 9110 §4.1 recommends.
    pub target_bytes_max: usize,
    /// Most header fields; beyond it 431. 100, as the large HTTP servers have it.
    pub headers_max: usize,
    /// Time from accept to a complete head, in total, not idle: a drip of bytes does not extend it.
    pub handshake_timeout: Duration,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            target_bytes_max: 8_000,
            headers_max: 100,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// What one open connection of a route may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest message after reassembly and inflation, in bytes; beyond it 1009.
    pub message_bytes_max: usize,
    /// Most fragments of one message; beyond it 1008. Bounds what endless empty fragments cost.
    pub fragments_max: u32,
    /// Most bytes waiting in a connection's out queue. A reply above it pauses reading from that
    /// peer; a push (a room's message) above it closes the slow consumer with 1008. An empty queue
    /// always admits one maximal message.
    pub queue_bytes_max: usize,
    /// A peer silent for this long is sent a ping; `None` sends none. 25 s is below the 30 s and
    /// 60 s after which common proxies drop an idle connection.
    pub ping_interval: Option<Duration>,
    /// After a ping, a peer with neither an inbound byte nor outbound progress for this long is
    /// dead. Suspended while we have paused reading from it.
    pub pong_timeout: Duration,
    /// A connection without a message in either direction for this long is closed with 1001;
    /// `None`, the default, never.
    pub idle_timeout: Option<Duration>,
    /// Time for the peer to answer our Close and to finish TCP; then the socket is dropped.
    pub close_timeout: Duration,
    /// Control frames a second a peer may send (token bucket of one second); beyond it 1008.
    /// `None` is no limit.
    pub control_rate_max: Option<u32>,
    /// Messages a second a peer may send; beyond it 1008. Off by default: what is sane depends on
    /// the app.
    pub message_rate_max: Option<u32>,
    /// Rooms one connection may be in. Bounds what leaving them costs.
    pub rooms_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1024 * 1024,
            fragments_max: 1_024,
            queue_bytes_max: 1024 * 1024,
            ping_interval: Some(Duration::from_secs(25)),
            pong_timeout: Duration::from_secs(10),
            idle_timeout: None,
            close_timeout: Duration::from_secs(5),
            control_rate_max: Some(100),
            message_rate_max: None,
            rooms_max: 128,
        }
    }
}

/// Longest name of a room or channel, in bytes. 255: a file name's bound, and it keeps a
/// membership small.
pub const ROOM_NAME_BYTES_MAX: usize = 255;
