//! Echo on tokio-tungstenite as most people write it: each reply is sent, and so flushed, alone.

use futures_util::{SinkExt, StreamExt};
use steadfast_bench::peer;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;

fn main() -> anyhow::Result<()> {
    peer::run(async |stream| {
        // A client that is gone is the normal end of a run.
        let _ = echo(stream).await;
    })
}

async fn echo(stream: TcpStream) -> Result<(), Error> {
    let mut ws = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = ws.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            ws.send(message).await?;
        }
    }
    Ok(())
}
