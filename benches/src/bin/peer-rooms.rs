//! A room on tokio-tungstenite as most people write it: one broadcast channel, and for each member
//! a task that sends what comes out of it and one that puts in what the member says. A member does
//! not get its own messages back. There is one room, whatever the path.

use futures_util::{SinkExt, StreamExt};
use steadfast_bench::peer;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Messages a member may be behind before it loses some: more than the load ever has in flight.
const CAPACITY: usize = 128;

type MemberId = u64;

fn main() -> anyhow::Result<()> {
    let (room, _) = broadcast::channel(CAPACITY);
    let ids = std::cell::Cell::new(0);
    peer::run(move |stream| {
        let id: MemberId = ids.replace(ids.get() + 1);
        let room = room.clone();
        async move {
            // A client that is gone is the normal end of a run.
            let _ = member(stream, id, room).await;
        }
    })
}

async fn member(
    stream: TcpStream,
    id: MemberId,
    room: broadcast::Sender<(MemberId, Message)>,
) -> Result<(), Error> {
    // Before the handshake, so that whoever has its answer is in the room.
    let mut messages = room.subscribe();
    let ws = tokio_tungstenite::accept_async(stream).await?;
    let (mut sender, mut receiver) = ws.split();

    // A member that lagged gets nothing more, which the load client notices.
    let sending = tokio::spawn(async move {
        while let Ok((from, message)) = messages.recv().await {
            if from != id && sender.send(message).await.is_err() {
                break;
            }
        }
    });

    while let Some(Ok(message)) = receiver.next().await {
        if message.is_text() || message.is_binary() {
            // Fails only without receivers, and this member is one.
            let _ = room.send((id, message));
        }
    }
    sending.abort();
    Ok(())
}
