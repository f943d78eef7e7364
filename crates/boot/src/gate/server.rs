//! The gates' socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use delivery::PathError;
use host::{Disk, ListenFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::gate::answer::BUSY;
use crate::gate::places::Places;
use crate::gate::{Board, GateState, MAX_QUESTION_BYTES, Question, Verb};

/// A bound socket that answers when it is run.
#[derive(Debug)]
pub struct GateSocket {
    listener: UnixListener,
    us: u32,
}

impl GateSocket {
    /// Binds `path`. Its directory must be safe by [`delivery::check_parents`], so that nobody can have put a socket
    /// there before us; what a crash of ours left there is removed, and what somebody answers at is not. Anybody on the
    /// device may ask: what is answered is no secret.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(disk: &dyn Disk, path: &Path, us: u32) -> Result<Self, BindError> {
        let failed = |what, cause| BindError::Io(PathError::new(what, path, cause));
        Self::check_place(disk, path, us)?;
        let listener = host::listen_at(path, 0o666).map_err(|fault| match fault {
            ListenFault::Io(cause) => failed("bind", cause),
            ListenFault::NotASocket { path, uid } => BindError::Squatted { path, uid },
            taken => BindError::Taken(taken),
        })?;
        Ok(Self { listener: UnixListener::from_std(listener).map_err(|e| failed("bind", e))?, us })
    }

    /// Whether `path` is a place for the socket; whether somebody answers there is not asked.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn check_place(disk: &dyn Disk, path: &Path, us: u32) -> Result<(), BindError> {
        delivery::check_parents(disk, path.parent().unwrap_or(Path::new("/")), us)?;
        match disk.meta(path).map_err(|e| BindError::Io(PathError::new("look at", path, e)))? {
            Some(m) if m.owner.uid != us => Err(BindError::Squatted { path: path.into(), uid: m.owner.uid }),
            _ => Ok(()),
        }
    }

    /// What ends the listening at once, while a task that serves is yet to notice.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Answers until the board's sender is gone.
    pub async fn serve(self, board: watch::Receiver<Board>) {
        let places = Places::new(self.us);
        let mut gone = board.clone();
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => accepted.map(|(stream, _)| stream),
                () = sender_gone(&mut gone) => return,
            };
            match stream {
                Ok(stream) => {
                    let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { continue };
                    let Some(place) = places.enter(uid) else {
                        // Told and closed at once: whoever waits for a gate tries again. A fresh socket has room for a
                        // line; one that has none is a peer's own affair.
                        let _ = stream.try_write(BUSY.as_bytes());
                        continue;
                    };
                    let board = board.clone();
                    tokio::spawn(async move {
                        if let Err(e) = converse(stream, board).await {
                            tracing::debug!(error = %e, "a question about a gate was not answered");
                        }
                        drop(place);
                    });
                }
                Err(e) => {
                    // Out of descriptors, for example. Not a reason to stop, but one not to spin.
                    tracing::warn!(error = %e, "the gates' socket does not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn sender_gone(board: &mut watch::Receiver<Board>) {
    while board.changed().await.is_ok() {}
}

async fn converse(mut stream: UnixStream, mut board: watch::Receiver<Board>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let line = tokio::time::timeout(QUESTION_DEADLINE, read_line(&mut stream)).await??;
    let question = Question::parse(&line).map_err(io::Error::other)?;
    tracing::debug!(gate = %question.gate, uid = peer.uid(), pid = ?peer.pid(), "asked about a gate");
    let answer = match question.verb {
        Verb::Ask => board.borrow().answer(&question.gate),
        Verb::Wait => {
            let settled = board.wait_for(|b| b.answer(&question.gate).state != GateState::Shut);
            // A peer that has gone must not hold a place; anything it says now is against the format.
            let mut byte = [0];
            tokio::select! {
                seen = settled => seen.map_err(io::Error::other)?.answer(&question.gate),
                _ = stream.read(&mut byte) => return Ok(()),
            }
        }
    };
    tokio::time::timeout(QUESTION_DEADLINE, stream.write_all(answer.encode().as_bytes())).await?
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(MAX_QUESTION_BYTES);
    let mut buffer = [0; MAX_QUESTION_BYTES];
    while !line.ends_with(b"\n") {
        let room = MAX_QUESTION_BYTES - line.len();
        let n = stream.read(&mut buffer[..room]).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into()); // the end, or no room left
        }
        line.extend_from_slice(&buffer[..n]);
    }
    Ok(line)
}

/// Why the socket is not there.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its directory is not safe.
    #[error(transparent)]
    Place(#[from] delivery::PlaceError),
    /// Something that is not an old socket of ours stands there.
    #[error("{} is taken by uid {uid}", path.display())]
    Squatted {
        /// The path.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Somebody answers there, or the path is too long.
    #[error(transparent)]
    Taken(ListenFault),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] PathError),
}

const QUESTION_DEADLINE: Duration = Duration::from_secs(5);
