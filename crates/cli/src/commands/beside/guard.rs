//! The guard: closes the key sources unless it is told in time that they are closed.
//!
//! ```text
//! b   something may be released: its time begins, anew at each        r   nothing was: its time stands still
//! d   they are closed: it goes                                         n   nothing was, and nothing will be: it goes
//! anything else, the end of the pipe (`up` is gone), a signal to end, or the end of its time: it closes them
//! ```
//! `n` is good only while its time stands still. A service manager that ends the device tells all its processes at
//! once: so a signal that comes in such a time waits a little for the last word of `up`.
//!
//! On its standard input, a pipe from `up`. It ends with 0 when they are closed, with another code when it could not
//! close them for as long as it may take. `up` looks after it in turn: before a release another takes the place of one
//! that is gone, and behind it the sources are closed at once. Whoever kills both in one moment has what releases are
//! left: a window is narrowed, and none is shut against root.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use boot::driver::{Environment, OnGuard, ReleaseGuard, Watch, close_sources};
use boot::plan::Plan;
use clap::Args;
use server::Signals;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::{CalledAs, ready, reap, start};
use crate::commands::up;
use crate::failure::{Code, Failure};

/// Started by `up`.
#[derive(Args)]
pub(crate) struct Guard {
    #[command(flatten)]
    up: CalledAs,
    /// When it closes the sources at the latest, after the word that something may be released.
    #[arg(long, value_name = "SECONDS")]
    within: u64,
}

/// The guard as `up` starts it.
pub(crate) struct GuardProcess(pub(crate) CalledAs);

impl ReleaseGuard for GuardProcess {
    fn start(&self, limit: Duration) -> io::Result<Box<dyn OnGuard>> {
        let mut arguments = self.0.arguments();
        arguments.extend(["--within".into(), limit.as_secs().to_string().into()]);
        let mut child = start("guard", &arguments, Stdio::inherit())?;
        let word = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Box::new(Posted { word, child: Some(child) }))
    }
}

/// A guard at its post; dropped, the pipe ends and it closes the sources.
struct Posted {
    word: ChildStdin,
    child: Option<Child>,
}

impl OnGuard for Posted {
    /// It ends well only when it has closed everything; with a code of its own it could not, and with none somebody has
    /// ended it.
    fn watch(&mut self) -> Watch {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => Watch::Stands,
            Some(Ok(Some(status))) if status.success() => Watch::Closed,
            Some(Ok(Some(status))) if status.code().is_some() => Watch::Failed,
            _ => Watch::Killed,
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        self.word.write_all(&[BEGIN])
    }

    fn rest(&mut self) -> io::Result<()> {
        self.word.write_all(&[REST])
    }

    fn dismiss(mut self: Box<Self>) {
        self.last_word(DISMISSED);
    }

    fn relieve(mut self: Box<Self>) {
        self.last_word(NOTHING);
    }
}

impl Posted {
    fn last_word(&mut self, word: u8) {
        if let Err(e) = self.word.write_all(&[word]) {
            tracing::warn!("the guard of the key sources ended before it was told to: {e}");
        }
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            reap(child);
        }
    }
}

/// Waits, and closes the sources if it must.
pub(in crate::commands) async fn run(guard: Guard) -> Result<(), Failure> {
    crate::process::log("warn");
    let config = guard.up.config()?;
    let environment = up::environment(None)?;
    let mut signals = Signals::new().map_err(|e| Failure::fault(format!("signals cannot be taken over: {e}")))?;
    let (told, mut words) = tokio::sync::mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("word of up".into())
        .spawn(move || {
            let mut word = [0];
            // A receiver that is gone is closing the sources.
            while matches!(io::stdin().read(&mut word), Ok(1)) && told.send(word[0]).is_ok() {}
        })
        .map_err(|e| Failure::fault(format!("the guard cannot listen: {e}")))?;
    ready();
    let Some(why) = watch(&mut words, &mut signals, Duration::from_secs(guard.within)).await else { return Ok(()) };
    let mut open = Vec::new();
    for tried in 0..TRIES {
        if tried > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        open = close(&config.plan, &environment, why).await;
        if open.is_empty() {
            return Ok(());
        }
    }
    open.iter().for_each(|fault| tracing::error!("{why}, and a key source is not closed: {fault}"));
    Err(Failure::new(Code::NotReady, format!("the key sources are not closed: {}", open.join("; "))))
}

/// What is known of the sources.
enum Post {
    /// Nothing was released.
    Rests,
    /// Something may have been: they are closed by then.
    Guards(Instant),
    /// Nothing was, and everybody is to end: the last word of `up` is waited for until then.
    Ends(Instant),
}

/// Why the sources are to be closed; `None` if they are, or have given nothing.
async fn watch(words: &mut UnboundedReceiver<u8>, signals: &mut Signals, within: Duration) -> Option<&'static str> {
    let mut post = Post::Rests;
    loop {
        let time_is_over = async {
            match post {
                Post::Guards(until) | Post::Ends(until) => tokio::time::sleep_until(until).await,
                Post::Rests => std::future::pending().await,
            }
        };
        tokio::select! {
            // What was said before a signal, or before the time was over, counts first.
            biased;
            word = words.recv() => match (word, &post) {
                (Some(DISMISSED), _) | (Some(NOTHING), Post::Rests | Post::Ends(_)) => return None,
                (Some(BEGIN), Post::Rests | Post::Guards(_)) => post = Post::Guards(Instant::now() + within),
                (Some(REST), Post::Rests | Post::Guards(_)) => post = Post::Rests,
                (Some(BEGIN | REST), Post::Ends(_)) => return Some(TO_END),
                _ => return Some("edgekeep is gone"),
            },
            _ = signals.next() => match post {
                Post::Rests => post = Post::Ends(Instant::now() + LAST_WORD),
                Post::Guards(_) | Post::Ends(_) => return Some(TO_END),
            },
            () = time_is_over => return Some(match post {
                Post::Ends(_) => TO_END,
                _ => "the store did not open in time",
            }),
        }
    }
}

/// Closes them; why any is open still.
async fn close(plan: &Plan, environment: &Environment, why: &str) -> Vec<String> {
    let closed = match close_sources(plan, environment, None).await {
        Ok(closed) => closed,
        Err(e) => return vec![e.to_string()],
    };
    closed.iter().flatten().for_each(|source| tracing::warn!("{why}: {source} gives nothing more in this boot"));
    closed.into_iter().filter_map(Result::err).collect()
}

const BEGIN: u8 = b'b';
const REST: u8 = b'r';
const DISMISSED: u8 = b'd';
const NOTHING: u8 = b'n';
const TO_END: &str = "the guard is to end";
/// `up` was told to end in the same moment, and waits for nothing when nothing was released.
const LAST_WORD: Duration = Duration::from_secs(5);
/// A TPM that is not there for a moment is there some seconds later; each try has the source's own deadline besides.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_secs(5);
