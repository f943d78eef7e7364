//! An end to waiting for a process.

use std::process::Child;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// As long as this lives, and for five minutes at most, a process is waited for; then it is killed and named, so that
/// whoever reads what it says, or waits for its end, comes to one.
pub struct LongestWait {
    _until_dropped: Sender<()>,
}

impl LongestWait {
    /// For this child, which its owner does not reap meanwhile but by the wait that is meant.
    ///
    /// # Panics
    /// If the machine has no thread left.
    pub fn of(child: &Child, what: &'static str) -> Self {
        Self::within(MOST, child, what)
    }

    fn within(limit: Duration, child: &Child, what: &'static str) -> Self {
        let (until_dropped, over) = channel::<()>();
        let pid = Pid::from_child(child);
        let watch = move || {
            if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("--- killed, for it was waited for in vain: {what}");
                kill_process(pid, Signal::KILL).ok();
            }
        };
        std::thread::Builder::new().name("longest wait".into()).spawn(watch).expect("a thread is left");
        Self { _until_dropped: until_dropped }
    }
}

const MOST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn cat() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn who_says_nothing_is_killed_and_who_is_let_go_is_not() {
        let mut silent = cat();
        let _wait = LongestWait::within(Duration::from_millis(20), &silent, "cat says something");
        let mut said = String::new();
        silent.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((said.as_str(), silent.wait().unwrap().signal()), ("", Some(9)));
        let mut other = cat();
        drop(LongestWait::within(Duration::from_secs(1000), &other, "cat ends"));
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
    }
}
