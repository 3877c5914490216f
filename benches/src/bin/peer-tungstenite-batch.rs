//! Echo on tokio-tungstenite with one flush a batch: replies are fed while further messages are
//! ready, and flushed once none is.

use futures_util::{FutureExt, SinkExt, StreamExt};
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
    while let Some(first) = ws.next().await {
        let mut next = Some(Some(first));
        while let Some(Some(message)) = next {
            let message = message?;
            if message.is_text() || message.is_binary() {
                ws.feed(message).await?;
            }
            next = ws.next().now_or_never();
        }
        ws.flush().await?;
    }
    Ok(())
}
