use super::*;
use std::fs::{self, File};
use std::io::{PipeReader, Read, Write};
use std::thread;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

fn borrowed<T: AsFd>(descriptors: &[T]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}

#[track_caller]
fn expect_packet(socket: &OwnedFd, expected: &[u8]) -> Vec<OwnedFd> {
    let mut buffer = [0; 1_000];
    let mut descriptors = Vec::new();
    let received = receive(socket, &mut buffer, &mut descriptors, PATIENCE).unwrap();
    assert_eq!(received, Received::Packet(expected.len()));
    assert_eq!(&buffer[..expected.len()], expected);
    descriptors
}

#[track_caller]
fn expect_no_packet(socket: &OwnedFd, expected: Received) {
    let mut descriptors = Vec::new();
    assert_eq!(receive(socket, &mut [0; 8], &mut descriptors, AT_ONCE).unwrap(), expected);
    assert!(descriptors.is_empty());
}

/// Whether every writing end of the pipe is closed: one that leaked would keep it open.
#[track_caller]
fn assert_ended(mut reader: PipeReader) {
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn packets_keep_their_bounds_and_their_order() {
    let (one, other) = pair().unwrap();
    expect_no_packet(&other, Received::Nothing);
    for bytes in [&b"first"[..], b"2", b"third"] {
        send(&one, bytes, &[], true).unwrap();
    }
    send(&other, b"back", &[], false).unwrap();
    for bytes in [&b"first"[..], b"2", b"third"] {
        assert!(expect_packet(&other, bytes).is_empty());
    }
    expect_no_packet(&other, Received::Nothing);
    expect_packet(&one, b"back");
}

#[test]
fn descriptors_arrive_as_many_as_may_and_close_on_exec() {
    let (one, other) = pair().unwrap();
    let (mut reader, writer) = io::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let mut all = vec![null.as_fd(); DESCRIPTORS_MAX];
    all[DESCRIPTORS_MAX - 1] = writer.as_fd();
    send(&one, b"fds", &all, true).unwrap();
    drop(writer);
    let mut received = expect_packet(&other, b"fds");
    assert_eq!(received.len(), DESCRIPTORS_MAX);
    for fd in &received {
        // SAFETY: this request takes no argument.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
    }
    File::from(received.pop().unwrap()).write_all(b"through").unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");

    let too_many = [null.as_fd(); DESCRIPTORS_MAX + 1];
    let error = send(&one, b"fds", &too_many, true).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(send(&one, b"", &[], true).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    expect_no_packet(&other, Received::Nothing);
}

#[test]
fn a_packet_too_long_is_an_error_and_leaks_nothing() {
    let (one, other) = pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    send(&one, b"nine byte", &borrowed(&[writer]), true).unwrap();
    send(&one, b"next", &[], true).unwrap();
    let mut descriptors = Vec::new();
    let error = receive(&other, &mut [0; 8], &mut descriptors, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(descriptors.is_empty());
    assert_ended(reader);
    expect_packet(&other, b"next");
}

#[test]
fn descriptors_without_room_for_them_are_an_error_and_none_leaks() {
    // In a process of its own: the limit of open files is the whole process's.
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new(program)
        .args(["--exact", "sys::packets::tests::with_few_descriptors", "--ignored"])
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Run by the test above in a process of its own, whose limit of open files it lowers.
#[test]
#[ignore = "it lowers the limit of open files of its process"]
fn with_few_descriptors() {
    let (one, other) = pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    send(&one, b"fds", &[writer.as_fd(); 100], true).unwrap();
    send(&one, b"fds", &[writer.as_fd(); 2], true).unwrap();
    drop(writer);
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = libc::rlimit { rlim_cur: open + 20, rlim_max: open + 20 };
    // SAFETY: `limit` is valid to read from while the call lasts.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let mut descriptors = Vec::new();
    let error = receive(&other, &mut [0; 8], &mut descriptors, PATIENCE).unwrap_err();
    assert!(error.to_string().contains("the limit of open files"), "{error}");
    assert!(descriptors.is_empty());
    assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count() as u64, open);
    assert_eq!(expect_packet(&other, b"fds").len(), 2);
    assert_ended(reader);
}

#[test]
fn the_end_comes_after_all_packets() {
    let (one, other) = pair().unwrap();
    send(&one, b"last", &[], true).unwrap();
    drop(one);
    expect_packet(&other, b"last");
    expect_no_packet(&other, Received::Ended);
    expect_no_packet(&other, Received::Ended);
    let error = send(&other, b"too late", &[], true).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn an_end_with_packets_unread_hides_none_of_ours() {
    let (one, other) = pair().unwrap();
    send(&other, b"never read", &[], true).unwrap();
    send(&one, b"last", &[], true).unwrap();
    drop(one);
    expect_packet(&other, b"last");
    expect_no_packet(&other, Received::Ended);

    let (one, other) = pair().unwrap();
    send(&other, b"never read", &[], true).unwrap();
    drop(one);
    let error = send(&other, b"too late", &[], true).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_full_queue_blocks_only_who_waits() {
    let (one, other) = pair().unwrap();
    let mut sent = 0;
    let error = loop {
        match send(&one, &[7; 1_000], &[], false) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(sent > 0);
    let sender = thread::spawn(move || send(&one, &[8; 1_000], &[], true).unwrap());
    for _ in 0..sent {
        expect_packet(&other, &[7; 1_000]);
    }
    expect_packet(&other, &[8; 1_000]);
    sender.join().unwrap();
}

#[test]
fn receiving_waits_as_long_as_it_is_told() {
    let (one, other) = pair().unwrap();
    let start = Instant::now();
    let timeout = Duration::from_millis(20);
    let received = receive(&other, &mut [0; 8], &mut Vec::new(), Some(timeout)).unwrap();
    assert_eq!(received, Received::Nothing);
    assert!(start.elapsed() >= timeout);

    let receiver = thread::spawn(move || {
        let received = receive(&other, &mut [0; 8], &mut Vec::new(), None).unwrap();
        (received, receive(&other, &mut [0; 8], &mut Vec::new(), None).unwrap())
    });
    send(&one, b"x", &[], true).unwrap();
    drop(one);
    assert_eq!(receiver.join().unwrap(), (Received::Packet(1), Received::Ended));
}

#[test]
fn writers_of_one_end_do_not_mix() {
    let (one, other) = pair().unwrap();
    let writers: Vec<_> = (1..=4)
        .map(|name| {
            let end = one.try_clone().unwrap();
            let packet = move |number| [[name; 200], [number; 200]].concat();
            thread::spawn(move || {
                (0..100).for_each(|number| send(&end, &packet(number), &[], true).unwrap());
            })
        })
        .collect();
    drop(one);
    let mut next = [0; 5];
    let mut buffer = [0; 1_000];
    while let Received::Packet(length) =
        receive(&other, &mut buffer, &mut Vec::new(), PATIENCE).unwrap()
    {
        assert_eq!(length, 400);
        let (name, number) = (buffer[0], buffer[200]);
        assert_eq!(buffer[..400], [[name; 200], [number; 200]].concat());
        assert_eq!(number, next[usize::from(name)]);
        next[usize::from(name)] += 1;
    }
    assert_eq!(next, [0, 100, 100, 100, 100]);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}
