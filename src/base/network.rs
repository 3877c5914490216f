//! Addresses: where to listen, and whom to trust.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// `sun_path` of Linux holds 108 bytes, one of which ends the string (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where to listen: `127.0.0.1:8000`, `[::]:80`, `unix:/run/steadfast.sock`,
/// `unix:/run/steadfast.sock?mode=0660&group=www-data`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An IP address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixAddr),
}

/// A Unix socket's path, and who may connect there. Two are equal if their paths are: there is one
/// socket at a path.
#[derive(Debug, Clone)]
pub struct UnixAddr {
    /// An absolute path of at most 107 bytes.
    pub path: PathBuf,
    /// Who may connect.
    pub access: Access,
}

/// Who may connect to a Unix socket: whoever may write to its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The file's mode.
    pub mode: u32,
    /// The file's group by its name or number; `None` is the server's own.
    pub group: Option<String>,
}

impl Access {
    /// Everybody whom the directory lets in.
    pub const ALL: Self = Self { mode: 0o666, group: None };
}

impl PartialEq for UnixAddr {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for UnixAddr {}

impl Hash for UnixAddr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

impl UnixAddr {
    /// Reads what follows `unix:`; `text` is the whole.
    fn parse(written: &str, text: &str) -> Result<Self, String> {
        let (path, query) = written.split_once('?').unwrap_or((written, ""));
        if !path.starts_with('/') {
            return Err(format!("the path of {text:?} is not absolute"));
        }
        if path.len() > UNIX_PATH_BYTES_MAX {
            let length = path.len();
            return Err(format!("the path of {text:?} has {length} bytes, a socket's has 107"));
        }
        let mut access = Access::ALL;
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("mode", mode)) => {
                    let octal = mode.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
                    let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
                    access.mode = mode.filter(|_| octal).ok_or_else(|| {
                        format!("the mode in {text:?} is not octal, such as mode=0660")
                    })?;
                }
                Some(("group", group)) if !group.is_empty() => {
                    access.group = Some(group.to_owned());
                }
                _ => return Err(format!("{option:?} in {text:?} is neither mode=… nor group=…")),
            }
        }
        Ok(Self { path: path.into(), access })
    }
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(written) = text.strip_prefix("unix:") {
            return UnixAddr::parse(written, text).map(Self::Unix);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        Err(match text.rsplit_once(':') {
            Some(("localhost", port)) => {
                format!("{text:?} is a name, not an address; write \"127.0.0.1:{port}\"")
            }
            Some((host, port))
                if host.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_err() =>
            {
                format!("{port:?} in {text:?} is not a port")
            }
            Some(("" | "*", port)) if port.parse::<u16>().is_ok() => {
                format!("{text:?} has no address; for all of them write \"[::]:{port}\"")
            }
            _ if text.parse::<IpAddr>().is_ok() => format!("{text:?} has no port"),
            _ if text.starts_with('/') => format!("a socket's path is written \"unix:{text}\""),
            _ => format!("{text:?} is not an address"),
        })
    }
}

/// Without who may connect: it is the same socket whoever may.
impl fmt::Display for ListenAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(UnixAddr { path, .. }) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl ListenAddr {
    /// As it is configured, with who may connect.
    pub fn written(&self) -> String {
        let Self::Unix(UnixAddr { access: Access { mode, group }, .. }) = self else {
            return self.to_string();
        };
        let mode = (*mode != Access::ALL.mode).then(|| format!("mode={mode:04o}"));
        let group = group.as_ref().map(|group| format!("group={group}"));
        let options: Vec<String> = mode.into_iter().chain(group).collect();
        let separator = if options.is_empty() { "" } else { "?" };
        format!("{self}{separator}{}", options.join("&"))
    }
}

/// A range of IP addresses in CIDR notation (RFC 4632): `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpNetwork {
    /// With every bit beyond the prefix zero.
    address: IpAddr,
    prefix_bits: u8,
}

impl IpNetwork {
    /// Whether `ip` is in the network. An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`, what a
    /// dual-stack listener reports) counts as the IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4() && masked(ip, self.prefix_bits) == self.address
    }
}

impl FromStr for IpNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(format!("{text:?} is not a network"));
        };
        // `contains` compares such a peer as IPv4, so the network would match nobody.
        if address.to_canonical() != address {
            return Err(format!("{text:?} is IPv4 mapped into IPv6; write the IPv4 network"));
        }
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix.map(u8::from_str) {
            None => bits_max,
            Some(Ok(bits)) if bits <= bits_max => bits,
            Some(_) => return Err(format!("the prefix of {text:?} is not 0 to {bits_max}")),
        };
        let network = masked(address, prefix_bits);
        // Most likely a slip: either the prefix or the address is not what was meant.
        if network != address {
            return Err(format!(
                "{text:?} has bits beyond its prefix; the network is \"{network}/{prefix_bits}\""
            ));
        }
        Ok(Self { address, prefix_bits })
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_bits)
    }
}

/// `address` with every bit beyond the first `bits` cleared.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    // A shift by the whole width overflows: that is the mask of /0, which is zero.
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

/// The peers that may speak for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Trusted by their IP address.
    pub networks: Vec<IpNetwork>,
    /// Whether whoever connects through a Unix socket is trusted.
    pub unix: bool,
}

impl TrustedProxies {
    /// Whether the peer of this address is trusted; `None` is a peer on a Unix socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(ip) => self.networks.iter().any(|network| network.contains(ip)),
            None => self.unix,
        }
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn listen_addresses_read_back_as_written() {
        for text in [
            "127.0.0.1:8000",
            "[::]:80",
            "0.0.0.0:0",
            "unix:/run/steadfast.sock",
            "unix:/run/s?mode=0660&group=www-data",
            "unix:/run/s?group=33",
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().written(), text);
        }
        let plain = "unix:/run/s".parse::<ListenAddr>().unwrap();
        let private = "unix:/run/s?mode=600".parse::<ListenAddr>().unwrap();
        assert_eq!(private.written(), "unix:/run/s?mode=0600");
        assert_eq!((private.to_string(), &private), (plain.to_string(), &plain), "one socket");
        for (text, problem) in [
            ("unix:/s?mode=1777", "the mode in"),
            ("unix:/s?mode=rw", "the mode in"),
            ("unix:/s?mode=+7", "the mode in"),
            ("unix:/s?mode=", "the mode in"),
            ("unix:/s?group=", "neither mode="),
            ("unix:/s?user=a", "neither mode="),
        ] {
            let error = text.parse::<ListenAddr>().unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_socket_path_has_107_bytes_at_most() {
        let longest = format!("unix:/{}", "x".repeat(106));
        assert!(longest.parse::<ListenAddr>().is_ok());
        assert!(format!("{longest}x").parse::<ListenAddr>().is_err());
    }

    #[test]
    fn a_network_holds_exactly_its_addresses() {
        let cases = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("192.0.2.128/25", "192.0.2.128", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
        ];
        for (text, ip, expected) in cases {
            assert_eq!(network(text).contains(ip.parse().unwrap()), expected, "{ip} in {text}");
        }
    }

    #[test]
    fn trust_is_by_network_or_by_socket_kind() {
        let proxies = TrustedProxies { networks: vec![network("10.0.0.0/8")], unix: false };
        assert!(proxies.trusts(Some("10.0.0.1".parse().unwrap())));
        assert!(!proxies.trusts(Some("127.0.0.1".parse().unwrap())));
        assert!(!proxies.trusts(None));
        assert!(TrustedProxies { networks: vec![], unix: true }.trusts(None));
    }
}
