//! Echo on fastwebsockets behind hyper, after the library's own example.
//!
//! One difference from the example: it writes the frame it has read, whose masking key is still
//! set, so that the echo leaves as a masked frame with an unmasked payload, which a client must
//! refuse (RFC 6455 §5.1). Here the reply is a new frame around the same payload.

use fastwebsockets::{FragmentCollector, Frame, OpCode, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use steadfast_bench::peer;

fn main() -> anyhow::Result<()> {
    peer::run(async |stream| {
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(accept))
            .with_upgrades();
        // A client that is gone is the normal end of a run.
        let _ = connection.await;
    })
}

async fn accept(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, socket) = upgrade::upgrade(&mut request)?;
    tokio::spawn(async move {
        let _ = tokio::task::unconstrained(echo(socket)).await;
    });
    Ok(response)
}

async fn echo(socket: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut ws = FragmentCollector::new(socket.await?);
    loop {
        let frame = ws.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => {
                let reply = Frame::new(true, frame.opcode, None, frame.payload);
                ws.write_frame(reply).await?;
            }
            _ => {}
        }
    }
}
