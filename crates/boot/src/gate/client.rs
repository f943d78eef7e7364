//! Waiting for a gate by its evidence: what `edgekeep wait` does.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::BootId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::gate::answer::BUSY;
use crate::gate::{Answer, AnswerError, Evidence, GateState, MAX_ANSWER_BYTES, Question, Verb};
use crate::plan::GateName;

/// Whom a waiting service believes.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// The kernel's boot id as the service sees it: an answer from another boot is stale.
    pub boot: BootId,
    /// The user id that edgekeep runs as, besides root: mostly our own.
    pub uid: u32,
    /// The CA's fingerprint, if the service knows it already.
    pub ca: Option<[u8; 32]>,
}

/// One question and its answer; the gate may be shut.
///
/// # Errors
/// [`WaitError`]; a stranger at the socket, a stale answer and a foreign CA are errors, never a shut gate.
pub async fn ask(socket: &Path, gate: &GateName, trust: &Trust) -> Result<Answer, WaitError> {
    converse(socket, &Question { verb: Verb::Ask, gate: gate.clone() }, trust).await
}

/// Waits until the gate is open. A socket that is not there yet, or an edgekeep that restarts, is waited for too.
///
/// # Errors
/// [`WaitError::TimedOut`] after `deadline`, or [`WaitError::Absent`] if nobody was there at the end; at once for a
/// gate that does not exist and for anybody who cannot be believed.
pub async fn wait_for(
    socket: &Path,
    gate: &GateName,
    trust: &Trust,
    deadline: Duration,
) -> Result<Evidence, WaitError> {
    let end = tokio::time::Instant::now() + deadline;
    let timed_out = || WaitError::TimedOut { gate: gate.clone(), seconds: deadline.as_secs() };
    // Looked at once however short the deadline: with none at all it would hang on who is quicker, the socket or the
    // clock.
    let mut away = None;
    if let Ok(found) = tokio::time::timeout(deadline.max(ONE_LOOK), ask(socket, gate, trust)).await {
        away = match Look::of(found, gate) {
            Look::Settled(outcome) => return outcome,
            Look::Shut => None,
            Look::Away(e) => Some(e),
        };
    }
    let question = Question { verb: Verb::Wait, gate: gate.clone() };
    loop {
        let asked = tokio::time::Instant::now();
        let Ok(found) = tokio::time::timeout_at(end, converse(socket, &question, trust)).await else {
            // Somebody listens to the question still; unless it was cut off before a refusal could have come: then
            // the one before it stands.
            let heard = asked.elapsed() >= ONE_LOOK;
            return Err(away.filter(|_| !heard).unwrap_or_else(timed_out));
        };
        away = match Look::of(found, gate) {
            Look::Settled(outcome) => return outcome,
            Look::Shut => None,
            Look::Away(e) => Some(e),
        };
        if tokio::time::timeout_at(end, tokio::time::sleep(RETRY)).await.is_err() {
            return Err(away.unwrap_or_else(timed_out));
        }
    }
}

/// What one look at the gate says to somebody who waits.
enum Look {
    /// There is nothing more to wait for.
    Settled(Result<Evidence, WaitError>),
    /// Somebody answers, and the gate is shut.
    Shut,
    /// Nobody is there, because the process starts or restarts, or because it does not run; or all places are taken.
    Away(WaitError),
}

impl Look {
    fn of(answer: Result<Answer, WaitError>, gate: &GateName) -> Self {
        match answer {
            Ok(Answer { state: GateState::Open(evidence), .. }) => Self::Settled(Ok(evidence)),
            Ok(Answer { state: GateState::Unknown, .. }) => {
                Self::Settled(Err(WaitError::NoSuchGate { gate: gate.clone() }))
            }
            Ok(_) => Self::Shut,
            Err(e @ (WaitError::Absent { .. } | WaitError::Busy { .. })) => Self::Away(e),
            Err(e) => Self::Settled(Err(e)),
        }
    }
}

async fn converse(socket: &Path, question: &Question, trust: &Trust) -> Result<Answer, WaitError> {
    let absent = |cause| WaitError::Absent { socket: socket.into(), cause };
    let mut stream = UnixStream::connect(socket).await.map_err(absent)?;
    // Before a byte is believed: the kernel says who is at the other end.
    let uid = stream.peer_cred().map_err(absent)?.uid();
    if uid != 0 && uid != trust.uid && host::in_force("gate-peer-checked") {
        return Err(WaitError::Stranger { socket: socket.into(), uid });
    }
    let asked = stream.write_all(question.encode().as_bytes()).await;
    let mut bytes = Vec::with_capacity(MAX_ANSWER_BYTES);
    let mut limited = stream.take(MAX_ANSWER_BYTES as u64 + 1);
    let read = limited.read_to_end(&mut bytes).await;
    // Said before the question was read, so that the socket may have been closed under it.
    if bytes == BUSY.as_bytes() {
        return Err(WaitError::Busy { socket: socket.into() });
    }
    asked.and(read.map(drop)).map_err(absent)?;
    if bytes.is_empty() {
        return Err(absent(io::ErrorKind::UnexpectedEof.into()));
    }
    let answer = Answer::parse(&bytes)?;
    if answer.gate != question.gate {
        return Err(WaitError::OtherGate { asked: question.gate.clone(), answered: answer.gate });
    }
    if answer.boot != trust.boot && host::in_force("gate-answers-of-this-boot") {
        return Err(WaitError::OtherBoot { answered: answer.boot, ours: trust.boot });
    }
    if let (GateState::Open(evidence), Some(ca)) = (&answer.state, trust.ca)
        && evidence.ca != ca
    {
        return Err(WaitError::OtherCa { answered: evidence.ca, ours: ca });
    }
    Ok(answer)
}

/// Why a gate is not known to be open.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Nobody answers.
    #[error("nobody answers at {}", socket.display())]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// This user has as many questions there as it may.
    #[error("{} has no place free for this user", socket.display())]
    Busy {
        /// The socket.
        socket: PathBuf,
    },
    /// Somebody answers who is neither root nor edgekeep's user.
    #[error("{} is held by uid {uid}, which is not edgekeep", socket.display())]
    Stranger {
        /// The socket.
        socket: PathBuf,
        /// Who holds it.
        uid: u32,
    },
    /// Bytes that are no answer.
    #[error(transparent)]
    Malformed(#[from] AnswerError),
    /// An answer to another question.
    #[error("asked about the gate {asked}, answered about {answered}")]
    OtherGate {
        /// What was asked.
        asked: GateName,
        /// What came.
        answered: GateName,
    },
    /// Evidence of another boot.
    #[error("the answer is of boot {answered}, this is boot {ours}")]
    OtherBoot {
        /// Of the answer.
        answered: BootId,
        /// Ours.
        ours: BootId,
    },
    /// Another device CA than the one that is pinned.
    #[error("the gate shows the CA {}, expected {}", hex::encode(answered), hex::encode(ours))]
    OtherCa {
        /// Of the answer.
        answered: [u8; 32],
        /// Ours.
        ours: [u8; 32],
    },
    /// Not in the plan.
    #[error("there is no gate {gate}")]
    NoSuchGate {
        /// The name.
        gate: GateName,
    },
    /// The deadline has passed.
    #[error("the gate {gate} did not open within {seconds} s")]
    TimedOut {
        /// The name.
        gate: GateName,
        /// The deadline.
        seconds: u64,
    },
}

impl WaitError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "start edgekeep, or give the socket that it was told to use",
            Self::Busy { .. } => "see which processes of this user wait for gates; each user has a share of the places",
            Self::Stranger { .. } => {
                "somebody else answers for edgekeep; find out who and stop it before any service starts"
            }
            Self::Malformed(_) | Self::OtherGate { .. } => "edgekeep and this command may be of different versions",
            Self::OtherBoot { .. } => {
                "the answer is not of this boot of this kernel; is the socket from another machine?"
            }
            Self::OtherCa { .. } => "the device was provisioned anew, or somebody stands in for it; fetch ca.pem again",
            Self::NoSuchGate { .. } => "see [[gate]] in edgekeep.toml for the names",
            Self::TimedOut { .. } => "edgekeep's log says what the gate waits for",
        }
    }
}

/// What an answer that is there already takes, on a loaded device too.
const ONE_LOOK: Duration = Duration::from_secs(2);
/// Between attempts while nobody is there.
const RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use host::OsDisk;
    use tokio::net::UnixListener;
    use tokio::sync::watch;

    use super::*;
    use crate::gate::{Board, GateSocket};
    use crate::testing::demo_plan;

    const BOOT: BootId = BootId([3; 16]);

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn trust() -> Trust {
        Trust { boot: BOOT, uid: us(), ca: Some([1; 32]) }
    }

    fn gate() -> GateName {
        "tokens-ready".parse().unwrap()
    }

    fn evidence() -> Evidence {
        Evidence { ca: [1; 32], receipts: [2; 32] }
    }

    fn board() -> Board {
        Board::shut(&demo_plan("/d".as_ref(), "/r".as_ref()), BOOT)
    }

    /// Somebody who answers every question with `text`.
    async fn impostor(path: &Path, text: String) {
        answer_all(UnixListener::bind(path).unwrap(), text);
    }

    /// Says `text` to whoever asks.
    fn answer_all(listener: UnixListener, text: String) {
        tokio::spawn(async move {
            while let Ok((mut s, _)) = listener.accept().await {
                if s.read(&mut [0; 128]).await.is_err() {
                    continue;
                }
                s.write_all(text.as_bytes()).await.ok();
            }
        });
    }

    /// A listener that another user put there: the kernel notes who calls listen(2). Only a thread that ends here
    /// becomes that user.
    fn listen_as(path: &Path, uid: u32) -> UnixListener {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
        let address = SocketAddrUnix::new(path).unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        bind(&socket, &address).unwrap();
        let listened = std::thread::spawn(move || {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).unwrap();
            listen(&socket, 8).unwrap();
            socket
        });
        UnixListener::from_std(listened.join().unwrap().into()).unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_waiter_is_let_go_when_the_gate_opens_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let (send, receive) = watch::channel(board());
        let server = tokio::spawn(GateSocket::bind(&OsDisk, &path, us()).unwrap().serve(receive));
        assert_eq!(ask(&path, &gate(), &trust()).await.unwrap().state, GateState::Shut);

        let waiting = tokio::spawn({
            let path = path.clone();
            async move { wait_for(&path, &gate(), &trust(), LONG).await }
        });
        let other: GateName = "ready-to-run".parse().unwrap();
        send.send_modify(|b| b.set(&[other].into(), evidence()));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "another gate is not this gate");
        send.send_modify(|b| b.set(&[gate()].into(), evidence()));
        assert_eq!(waiting.await.unwrap().unwrap(), evidence());

        send.send_modify(Board::shut_all);
        assert_eq!(ask(&path, &gate(), &trust()).await.unwrap().state, GateState::Shut, "sealed shuts it again");
        drop(send);
        server.await.unwrap();
    }

    /// Connects as another user, `n` times. Only a thread that ends here becomes that user.
    async fn connected_as(path: &Path, uid: u32, n: usize) -> Vec<std::os::unix::net::UnixStream> {
        let path = path.to_owned();
        let connect = move || {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).unwrap();
            (0..n).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect()
        };
        tokio::task::spawn_blocking(|| std::thread::spawn(connect).join().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_user_who_takes_all_that_he_may_is_told_so_and_stops_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        host::Disk::set_mode(&OsDisk, dir.path(), 0o755).unwrap();
        let (_send, receive) = watch::channel(board());
        tokio::spawn(GateSocket::bind(&OsDisk, &path, us()).unwrap().serve(receive));
        let crowd = connected_as(&path, 65534, 300).await;
        for user in [0, 65533] {
            let [stream] = connected_as(&path, user, 1).await.try_into().unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut stream = UnixStream::from_std(stream).unwrap();
            let question = Question { verb: Verb::Ask, gate: gate() };
            stream.write_all(question.encode().as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(Answer::parse(&answer).unwrap().state, GateState::Shut, "user {user}");
        }
        let told = crowd.iter().filter(|stream| {
            let mut said = Vec::new();
            stream.set_nonblocking(true).unwrap();
            let _ = std::io::Read::read_to_end(&mut &**stream, &mut said);
            said == BUSY.as_bytes()
        });
        assert_eq!(told.count(), 300 - 64);
    }

    /// Has no place for the first `busy` who ask, and listens to the next without an answer. Tells how many came.
    fn taken_at_first(path: &Path, busy: usize) -> Arc<AtomicUsize> {
        let listener = UnixListener::bind(path).unwrap();
        let came = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&came);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut s, _)) = listener.accept().await {
                if count.fetch_add(1, Ordering::SeqCst) < busy {
                    s.write_all(BUSY.as_bytes()).await.unwrap();
                } else {
                    held.push(s);
                }
            }
        });
        came
    }

    // Here the clock stands while anybody has work to do, so that a loaded machine changes nothing.
    #[tokio::test(start_paused = true)]
    async fn who_is_told_that_there_is_no_place_tries_again_until_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let came = taken_at_first(&path, usize::MAX);
        let answer = wait_for(&path, &gate(), &trust(), RETRY * 5 + RETRY / 2).await;
        assert!(matches!(answer, Err(WaitError::Busy { .. })), "{answer:?}");
        assert_eq!(came.load(Ordering::SeqCst), 1 + 6, "the look, and one question after each pause");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stands_if_the_next_question_had_no_time_for_one_and_a_question_that_is_heard_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        taken_at_first(&path, 2);
        let answer = wait_for(&path, &gate(), &trust(), RETRY + ONE_LOOK / 2).await;
        assert!(matches!(answer, Err(WaitError::Busy { .. })), "{answer:?}");

        let path = dir.path().join("other.sock");
        taken_at_first(&path, 2);
        let answer = wait_for(&path, &gate(), &trust(), RETRY + ONE_LOOK).await;
        assert!(matches!(answer, Err(WaitError::TimedOut { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn an_unknown_gate_is_no_endless_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let (_send, receive) = watch::channel(board());
        tokio::spawn(GateSocket::bind(&OsDisk, &path, us()).unwrap().serve(receive));
        let answer = wait_for(&path, &"nosuch".parse().unwrap(), &trust(), LONG).await;
        assert!(matches!(answer, Err(WaitError::NoSuchGate { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn without_time_it_is_looked_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let (send, receive) = watch::channel(board());
        tokio::spawn(GateSocket::bind(&OsDisk, &path, us()).unwrap().serve(receive));
        let (gate, trust) = (gate(), trust());
        let now = || wait_for(&path, &gate, &trust, Duration::ZERO);
        assert!(matches!(now().await, Err(WaitError::TimedOut { .. })), "shut");
        send.send_modify(|b| b.set(&[gate.clone()].into(), evidence()));
        assert!(now().await.is_ok());
    }

    #[tokio::test]
    async fn nobody_there_is_waited_for_until_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let answer = wait_for(&path, &gate(), &trust(), Duration::from_millis(10)).await;
        assert!(matches!(answer, Err(WaitError::Absent { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn a_squatter_of_another_user_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let mut b = board();
        b.set(&[gate()].into(), evidence());
        if us() == 0 {
            // Root is trusted by everybody, so the impostor must be somebody else.
            answer_all(listen_as(&path, 65534), b.answer(&gate()).encode());
            assert!(matches!(ask(&path, &gate(), &trust()).await, Err(WaitError::Stranger { uid: 65534, .. })));
        } else {
            // The impostor runs as us; a service that trusts only another user must refuse.
            impostor(&path, b.answer(&gate()).encode()).await;
            let other = Trust { uid: us() + 1, ..trust() };
            assert!(matches!(ask(&path, &gate(), &other).await, Err(WaitError::Stranger { .. })));
        }
    }

    #[tokio::test]
    async fn evidence_of_another_boot_or_ca_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let mut b = board();
        b.set(&[gate()].into(), evidence());
        impostor(&path, b.answer(&gate()).encode()).await;
        assert!(ask(&path, &gate(), &trust()).await.is_ok());
        let stale = Trust { boot: BootId([4; 16]), ..trust() };
        assert!(matches!(ask(&path, &gate(), &stale).await, Err(WaitError::OtherBoot { .. })));
        let pinned = Trust { ca: Some([9; 32]), ..trust() };
        assert!(matches!(ask(&path, &gate(), &pinned).await, Err(WaitError::OtherCa { .. })));
        let other: GateName = "ready-to-run".parse().unwrap();
        assert!(matches!(ask(&path, &other, &trust()).await, Err(WaitError::OtherGate { .. })));
    }

    #[tokio::test]
    async fn a_flood_or_junk_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("junk", "HTTP/1.1 200 OK\r\n\r\n".to_owned()), ("flood", "x".repeat(100_000))] {
            let path = dir.path().join(name);
            impostor(&path, text).await;
            let answer = wait_for(&path, &gate(), &trust(), LONG).await;
            assert!(matches!(answer, Err(WaitError::Malformed(_))), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_socket_path_that_is_taken_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        host::Disk::write_new(&OsDisk, &path, b"x", 0o600, None).unwrap();
        let refused = GateSocket::bind(&OsDisk, &path, us());
        assert!(matches!(refused, Err(crate::gate::BindError::Squatted { .. })), "{refused:?}");
    }
}
