//! What the peer servers share: their command line, their runtime and their accept loop.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use tokio::net::{TcpListener, TcpStream};

/// Runs a peer: binds 127.0.0.1 at the port after `--port` (0 takes a free one), prints the port on
/// a line of its own, and spawns `serve` for each connection, on a runtime of one thread. Every
/// socket has TCP_NODELAY. Returns only on errors.
pub fn run<F>(serve: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let port = port_argument()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream));
        }
    })
}

fn port_argument() -> Result<u16> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(0),
        (Some("--port"), Some(port)) => Ok(port.parse()?),
        _ => bail!("usage: peer-… [--port PORT]"),
    }
}
