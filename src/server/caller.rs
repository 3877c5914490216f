//! Taking over from a server that has not started this process: by calling its control socket.

use std::io;
use std::path::PathBuf;

use super::launch::Supervision;
use super::running::Running;
use super::{Builder, Entry, takeover};
use crate::config::Settings;
use crate::control::{Client, ClientError, Outcome, TakingOver, path};
use crate::sys::signals::Signals;

/// A server that hands everything over.
pub(super) struct Call {
    path: PathBuf,
    taking: TakingOver,
}

/// Calls the server that has the control socket of these settings; `None` if none answers.
///
/// # Errors
/// It does not hand over, is somebody else's, or cannot be known.
pub(super) fn call(settings: &Settings) -> io::Result<Option<Call>> {
    let path = path::socket_path(settings.control.as_deref(), &settings.listen);
    let path = std::path::absolute(path.ok_or_else(|| {
        let text = "with port 0 it cannot be known whom to take over from: give --control PATH";
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?)?;
    let called = Client::connect(&path).and_then(Client::take_over);
    match called {
        Ok(Ok(taking)) => Ok(Some(Call { path, taking })),
        Ok(Err(failed)) => Err(not_taken(&failed.reason)),
        Err(ClientError::NoServer(..)) => {
            tracing::info!(control = %path.display(), "there is no server to take over from");
            Ok(None)
        }
        Err(error) => Err(not_taken(&error.to_string())),
    }
}

impl Call {
    /// Takes everything over.
    ///
    /// # Errors
    /// Why it was called off: the other server goes on; as [`takeover::take_over`].
    pub(super) fn take_over(
        self,
        builder: &Builder,
        settings: &Settings,
        supervision: Supervision,
        signals: &Signals,
    ) -> io::Result<Running> {
        let Self { path, taking } = self;
        let called = path.clone();
        let channel = taking.channel.try_clone()?;
        let (entry, called_at) = (Entry::Takeover, Some(path));
        let outcome =
            takeover::take_over(builder, settings, entry, channel, called_at, supervision, signals);
        match outcome {
            Ok(running) => {
                tracing::info!(control = %called.display(), "everything was taken over");
                Ok(running)
            }
            Err(reason) => Err(match taking.outcome() {
                Ok(Outcome::Failed(failed)) => not_taken(&failed.reason),
                _ => not_taken(&reason),
            }),
        }
    }
}

fn not_taken(reason: &str) -> io::Error {
    io::Error::other(format!("nothing was taken over: {reason}"))
}
