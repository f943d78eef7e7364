//! The gates' socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use delivery::PathError;
use host::{Disk, FileKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::gate::{Board, GateState, MAX_QUESTION_BYTES, Question, Verb};

/// A bound socket that answers when it is run.
#[derive(Debug)]
pub struct GateSocket {
    listener: UnixListener,
}

impl GateSocket {
    /// Binds `path`. Its directory must be safe by [`delivery::check_parents`], so that nobody can have put a socket there before
    /// us; what a crash of ours left there is removed. Anybody on the device may ask: what is answered is no secret.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(disk: &dyn Disk, path: &Path, us: u32) -> Result<Self, BindError> {
        let failed = |what, cause| BindError::Io(PathError::new(what, path, cause));
        let dir = path.parent().unwrap_or(Path::new("/"));
        delivery::check_parents(disk, dir, us)?;
        match disk.meta(path).map_err(|e| failed("look at", e))? {
            None => {}
            Some(m) if m.kind == FileKind::Other && m.owner.uid == us => {
                disk.remove_file(path).map_err(|e| failed("remove the old socket", e))?;
            }
            Some(m) => return Err(BindError::Squatted { path: path.into(), uid: m.owner.uid }),
        }
        let listener = UnixListener::bind(path).map_err(|e| failed("bind", e))?;
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(path, everybody).map_err(|e| failed("open to others", e))?;
        Ok(Self { listener })
    }

    /// Answers until the board's sender is gone.
    pub async fn serve(self, board: watch::Receiver<Board>) {
        let places = Arc::new(Semaphore::new(MAX_WAITING));
        let mut gone = board.clone();
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => accepted.map(|(stream, _)| stream),
                () = sender_gone(&mut gone) => return,
            };
            match stream {
                // No place: closed at once. Who waits for a gate tries again; who floods gains nothing.
                Ok(stream) => {
                    if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                        let board = board.clone();
                        tokio::spawn(async move {
                            if let Err(e) = converse(stream, board).await {
                                tracing::debug!(error = %e, "a question about a gate was not answered");
                            }
                            drop(place);
                        });
                    }
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
    /// The system refused.
    #[error(transparent)]
    Io(#[from] PathError),
}

/// More than the services of any device; a place costs a descriptor and a few hundred bytes.
const MAX_WAITING: usize = 256;
const QUESTION_DEADLINE: Duration = Duration::from_secs(5);
