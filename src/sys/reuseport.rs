//! The group of sockets that listen on one address together (SO_REUSEPORT, socket(7)): who is in it,
//! and to whom the kernel gives new connections.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, sock_filter, sock_fprog};

// Classic BPF (linux/bpf_common.h, linux/filter.h).
const LOAD_WORD_AT: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
const ADD: u16 = 0x04; // BPF_ALU | BPF_ADD | BPF_K
const RETURN_RESULT: u16 = 0x16; // BPF_RET | BPF_A

/// Where a random number is "loaded" from (SKF_AD_OFF + SKF_AD_RANDOM).
const RANDOM: u32 = 0xffff_f000 + 56;

/// The state of a listening socket in /proc/net/tcp.
const LISTENING: &str = "0A";

/// About what a line has there.
const LINE_BYTES: usize = 150;

/// The inodes of all sockets of this network namespace that listen on exactly this address, ours
/// among them, whoever has them, in the order in which they began to listen. That is their order in
/// the group as long as none has left it: the last member takes the place of one that leaves.
///
/// # Errors
/// /proc is not there, or is not what it was.
pub fn listeners(address: SocketAddr) -> io::Result<Vec<u64>> {
    let table = match address {
        SocketAddr::V4(_) => "/proc/self/net/tcp",
        SocketAddr::V6(_) => "/proc/self/net/tcp6",
    };
    let in_table = as_in_proc(address);
    let mut inodes = Vec::new();
    // The sockets that listen come first. Behind them the kernel would walk through all connections
    // there are: so no more is read at once than a line.
    for line in BufReader::with_capacity(LINE_BYTES, File::open(table)?).lines().skip(1) {
        let line = line?;
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if fields.get(3) != Some(&LISTENING) {
            break;
        }
        if fields.get(1) == Some(&&*in_table) {
            inodes.extend(fields.get(9).and_then(|inode| inode.parse::<u64>().ok()));
        }
    }
    if address.is_ipv4() {
        // The kernel puts a new one to the front of this table, and to the end of the other one.
        inodes.reverse();
    }
    Ok(inodes)
}

/// An address as /proc/net/tcp has it: words of the address in the byte order of the machine.
fn as_in_proc(address: SocketAddr) -> String {
    let octets = match address {
        SocketAddr::V4(address) => address.ip().octets().to_vec(),
        SocketAddr::V6(address) => address.ip().octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| {
        let word = u32::from_ne_bytes(word.try_into().expect("four bytes"));
        format!("{word:08X}")
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

/// From now on the kernel gives new connections to the members in these places of `listener`'s group,
/// each as often as any other. Where there is no such place, to any of the group. It holds until
/// [`steer_nowhere`], even without us.
///
/// # Errors
/// Those of setsockopt(2) with SO_ATTACH_REUSEPORT_CBPF; `InvalidInput` for no places.
pub fn steer_to(listener: impl AsFd, places: Range<usize>) -> io::Result<()> {
    let (Ok(first), Ok(count @ 1..)) = (u32::try_from(places.start), u32::try_from(places.len()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let instruction = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let mut program = [
        instruction(LOAD_WORD_AT, RANDOM),
        instruction(MODULO, count),
        instruction(ADD, first),
        instruction(RETURN_RESULT, 0),
    ];
    let program = sock_fprog { len: program.len() as _, filter: program.as_mut_ptr() };
    set(listener, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// The kernel spreads new connections over the whole group again.
///
/// # Errors
/// Those of setsockopt(2) with SO_DETACH_REUSEPORT_BPF: ENOENT if nothing is steered.
pub fn steer_nowhere(listener: impl AsFd) -> io::Result<()> {
    set(listener, libc::SO_DETACH_REUSEPORT_BPF, &(0 as c_int))
}

fn set<T>(socket: impl AsFd, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the call reads as many bytes as the value has; where that is a program, its
    // instructions are there while the call lasts.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as _,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    /// Enough that chance leaves no member of four out.
    const CONNECTIONS: usize = 64;

    fn join(address: SocketAddr) -> TcpListener {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        socket.into()
    }

    fn group(members: usize) -> (Vec<TcpListener>, SocketAddr) {
        let first = join("127.0.0.1:0".parse().unwrap());
        let address = first.local_addr().unwrap();
        let others = (1..members).map(|_| join(address));
        ([first].into_iter().chain(others).collect(), address)
    }

    /// How many of new connections each member gets.
    fn spread(group: &[TcpListener], address: SocketAddr) -> Vec<usize> {
        let _clients: Vec<_> =
            (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let accepted = |listener: &TcpListener| listener.incoming().map_while(Result::ok).count();
        group.iter().map(accepted).collect()
    }

    #[test]
    fn the_first_members_are_spared_until_that_ends() {
        let (group, address) = group(4);
        assert!(spread(&group, address).iter().all(|count| *count > 0));
        steer_to(&group[1], 2..4).unwrap();
        let spared = spread(&group, address);
        assert_eq!(spared[..2], [0, 0]);
        assert!(spared[2] > 0 && spared[3] > 0, "{spared:?}");
        assert_eq!(spared.iter().sum::<usize>(), CONNECTIONS);
        steer_to(&group[1], 4..5).unwrap();
        assert!(spread(&group, address).iter().all(|count| *count > 0), "no such place");
        steer_nowhere(&group[0]).unwrap();
        assert!(spread(&group, address).iter().all(|count| *count > 0));
        assert!(steer_nowhere(&group[0]).is_err(), "nothing is steered");
    }

    #[test]
    fn nobody_would_be_left() {
        let (group, _) = group(2);
        let error = steer_to(&group[0], 2..2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn all_that_listen_are_found_and_no_others() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let first = join(address.parse().unwrap());
            let address = first.local_addr().unwrap();
            let second = join(address);
            let bound = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            bound.set_reuse_port(true).unwrap();
            bound.bind(&address.into()).unwrap();
            let _client = TcpStream::connect(address).unwrap();
            let third = join(address);
            let expected = [&first, &second, &third].map(inode);
            assert_eq!(listeners(address).unwrap(), expected);
        }
    }

    fn inode(listener: &TcpListener) -> u64 {
        let copy = listener.as_fd().try_clone_to_owned().unwrap();
        File::from(copy).metadata().unwrap().ino()
    }
}
