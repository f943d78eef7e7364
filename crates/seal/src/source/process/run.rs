//! Runs a hook or a helper within bounds: of time, of output, of environment, of processes.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use host::{BootTime, Clock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use zeroize::Zeroizing;

use super::trusted::Trusted;
use crate::source::{Deadline, SourceError};

/// What a hook is given.
pub(in crate::source) struct Asked<'a> {
    /// Its whole environment.
    pub(in crate::source) env: &'a [(String, String)],
    /// What stands on its standard input, at most a page; without it that is empty.
    pub(in crate::source) input: Option<Zeroizing<Vec<u8>>>,
    /// When it is killed.
    pub(in crate::source) deadline: Deadline,
}

/// What the hook printed, once it has ended with status 0 and nothing holds its output any more.
pub(in crate::source) fn run(
    hook: &Trusted,
    asked: Asked<'_>,
    clock: &dyn Clock,
) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let (printed, seen) = attend(hook, asked, clock, |_| false);
    seen.log(hook);
    printed
}

/// As [`run`], and what else could be seen; nothing is logged.
pub(in crate::source) fn watch(
    hook: &Trusted,
    asked: Asked<'_>,
    clock: &dyn Clock,
) -> (Result<Zeroizing<Vec<u8>>, SourceError>, Seen) {
    attend(hook, asked, clock, Running::has_left_others)
}

/// What else could be seen of a hook's run.
#[derive(Default)]
pub(in crate::source) struct Seen {
    /// What it said on standard error, cut.
    stderr: Vec<u8>,
    /// It has ended, and something that it started has not.
    pub(in crate::source) left_behind: bool,
}

impl Seen {
    /// Whether it said anything on standard error.
    pub(in crate::source) fn complains(&self) -> bool {
        !self.stderr.is_empty()
    }

    /// The hook's complaints, for the operator. Its output is key material and is never logged, and neither is what
    /// looks like it among the complaints (`sh -x`).
    fn log(&self, hook: &Trusted) {
        if self.complains() {
            tracing::warn!(hook = %hook.path().display(), stderr = %presentable(&self.stderr), "the hook complains");
        }
    }
}

fn attend(
    hook: &Trusted,
    asked: Asked<'_>,
    clock: &dyn Clock,
    left_others: impl FnOnce(&Running) -> bool,
) -> (Result<Zeroizing<Vec<u8>>, SourceError>, Seen) {
    let deadline = asked.deadline;
    let what = || hook.path().display().to_string();
    let os = |source: io::Error| SourceError::Os { what: what(), source };
    let mut child = match Running::start(hook, asked) {
        Ok(child) => child,
        Err(e) => return (Err(os(e)), Seen::default()),
    };
    let outcome = child.watch(deadline.at(), clock);
    let left_behind = left_others(&child);
    let status = child.stop();
    let seen = Seen { stderr: std::mem::take(&mut child.stderr), left_behind };
    let printed = match (outcome, status) {
        (Ok(()), Some(status)) if status.success() => {
            let mut stdout = std::mem::take(&mut child.stdout);
            stdout.truncate(child.filled);
            Ok(stdout)
        }
        (Ok(()), Some(status)) => Err(SourceError::HookFailed { what: what(), status: status.to_string() }),
        (Ok(()), None) | (Err(Fault::Time), _) => Err(SourceError::TimedOut { what: what(), limit: deadline.limit() }),
        (Err(Fault::Flood), _) => Err(SourceError::BadOutput { what: what(), defect: "it has more than 8192 digits" }),
        (Err(Fault::Os(e)), _) => Err(os(e.into())),
    };
    (printed, seen)
}

/// Why a hook was cut short.
enum Fault {
    Time,
    Flood,
    Os(Errno),
}

/// A hook at work, and what has come of it.
struct Running {
    child: Child,
    group: Pid,
    /// Tells the end of the process without reaping it: until it is reaped, its number cannot become another's.
    pidfd: OwnedFd,
    stopped: bool,
    /// Never grows, so that no copies stay behind; one byte more than may be printed, to notice a flood.
    stdout: Zeroizing<Vec<u8>>,
    filled: usize,
    stderr: Vec<u8>,
}

impl Running {
    fn start(hook: &Trusted, asked: Asked<'_>) -> io::Result<Self> {
        if asked.input.as_ref().is_some_and(|input| input.len() > MAX_INPUT) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if hook.is_script() {
            // The interpreter opens the descriptor once more, after exec. Should another thread start a process just
            // now, that process can read the hook's text: no secret.
            fcntl_setfd(hook.file(), FdFlags::empty())?;
        }
        let mut program = PathBuf::from(format!("/proc/self/fd/{}", hook.file().as_raw_fd()));
        if !host::in_force("hook-run-by-descriptor") {
            program = hook.path().to_owned();
        }
        let mut child = Command::new(program)
            .arg0(hook.path())
            .env_clear()
            .envs(asked.env.iter().map(|(k, v)| (k, v)))
            .current_dir("/")
            .stdin(if asked.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        let pidfd = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(e) => {
                // A kernel before 5.3: nothing here can be bounded without it, so nothing is run.
                let _ = kill_process_group(group, Signal::KILL);
                child.wait()?;
                return Err(e.into());
            }
        };
        let stdout = Zeroizing::new(vec![0; MAX_OUTPUT + 1]);
        let stderr = Vec::with_capacity(MAX_STDERR);
        let mut running = Self { child, group, pidfd, stopped: false, stdout, filled: 0, stderr };
        if let (Some(input), Some(mut stdin)) = (asked.input, running.child.stdin.take()) {
            // An empty pipe takes a page at once, whether or not anybody reads. A helper that has ended already is
            // heard of by what it said.
            match stdin.write_all(&input) {
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
                _ => {}
            }
        }
        Ok(running)
    }

    /// Reads until the output has been closed by all who held it and the hook has ended.
    fn watch(&mut self, deadline: BootTime, clock: &dyn Clock) -> Result<(), Fault> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else { return Err(Fault::Os(Errno::BADF)) };
        let (mut printing, mut complaining, mut alive) = (true, true, true);
        while printing || alive {
            // Looked at each time: a hook that never stops complaining would always have something ready.
            let left = deadline.since(clock.boottime());
            if left.is_zero() {
                return Err(Fault::Time);
            }
            let streams = [
                printing.then(|| stdout.as_fd()),
                complaining.then(|| stderr.as_fd()),
                alive.then(|| self.pidfd.as_fd()),
            ];
            let ready = wait_for(streams, left).map_err(Fault::Os)?;
            match ready {
                [false, false, false] => return Err(Fault::Time),
                [out, err, end] => {
                    if out {
                        let n = read(&stdout, &mut self.stdout[self.filled..])?;
                        self.filled += n;
                        printing = n > 0;
                        if self.filled == self.stdout.len() && host::in_force("hook-output-bound") {
                            return Err(Fault::Flood);
                        }
                    }
                    if err {
                        complaining = self.keep_complaint(&stderr)?;
                    }
                    alive &= !end;
                }
            }
        }
        // What the hook said last; a process that it left behind is not waited for.
        while complaining && wait_for([Some(stderr.as_fd()), None, None], Duration::ZERO).map_err(Fault::Os)?[0] {
            complaining = self.keep_complaint(&stderr)? && self.stderr.len() < MAX_STDERR;
        }
        Ok(())
    }

    fn keep_complaint(&mut self, stderr: &impl AsFd) -> Result<bool, Fault> {
        let mut piece = [0; 512];
        let n = read(stderr, &mut piece)?;
        let room = MAX_STDERR.saturating_sub(self.stderr.len());
        self.stderr.extend(piece.iter().take(n.min(room)));
        Ok(n > 0)
    }

    /// Ends the whole group, also after success: a hook has nothing to leave behind. Gives the hook's own end, unless
    /// it hangs in the kernel (a dead bus), where nothing can kill it: that must not hang us too.
    fn stop(&mut self) -> Option<ExitStatus> {
        self.stopped = true;
        // ESRCH: nobody is left.
        if host::in_force("hook-group-killed") {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        let _ = wait_for([Some(self.pidfd.as_fd())], DYING);
        self.child.try_wait().ok().flatten()
    }

    /// Whether the hook itself has ended, and its group has other processes. Before the group is killed, and before the
    /// hook is reaped: until then the group's number is nobody else's.
    fn has_left_others(&self) -> bool {
        let ended = wait_for([Some(self.pidfd.as_fd())], Duration::ZERO).is_ok_and(|[ended]| ended);
        // The hook leads its group, so one number names both.
        let hook = self.group.as_raw_pid().to_string();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let others = processes.filter(|entry| entry.file_name().to_str().is_some_and(|name| name != hook));
        let is_member = |stat: String| {
            // proc_pid_stat(5): the name in brackets, which may hold anything, state, parent, group.
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            rest.split(' ').nth(2).is_some_and(|group| group == hook)
        };
        ended && others.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok()).any(is_member)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.stopped {
            self.stop();
        }
    }
}

/// Which of `fds` can be read, or have ended; none when the time is over.
fn wait_for<const N: usize>(fds: [Option<BorrowedFd<'_>>; N], limit: Duration) -> Result<[bool; N], Errno> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = Timespec::try_from(limit).map_err(|_| Errno::INVAL)?;
    loop {
        match poll(&mut polled, Some(&limit)) {
            // A signal to us; the limit starts anew, and signals do not come without end.
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
            Ok(_) => break,
        }
    }
    let mut ready = polled.iter().map(|p| !p.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false)))
}

fn read(from: &impl AsFd, into: &mut [u8]) -> Result<usize, Fault> {
    loop {
        match rustix::io::read(from, &mut *into) {
            Err(Errno::INTR) => {}
            other => return other.map_err(Fault::Os),
        }
    }
}

/// Text for a log line: escaped, and long hexadecimal runs taken out.
fn presentable(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_hexdigit() {
            run.push(c);
            continue;
        }
        out.push_str(if run.len() >= LOOKS_LIKE_KEY && host::in_force("hook-complaints-cleaned") {
            "[removed]"
        } else {
            &run
        });
        run.clear();
        out.extend(c.escape_default());
    }
    out.truncate(out.len() - "\\n".len());
    out
}

/// Most bytes of output: a hook's 8192 digits and a line feed.
pub(in crate::source) const MAX_OUTPUT: usize = 8193;
/// Most bytes of input: what every pipe has room for.
const MAX_INPUT: usize = 4096;
/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_secs(1);
/// What is kept of the hook's complaints.
const MAX_STDERR: usize = 4096;
/// Hexadecimal digits in a row that are not shown.
const LOOKS_LIKE_KEY: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_show_no_key_and_no_control_characters() {
        assert_eq!(
            presentable(b"+ echo 64acd82883269a5e46b8b0426d5a18e2b006\x1b[2J\n"),
            "+ echo [removed]\\u{1b}[2J\\n"
        );
        assert_eq!(presentable(b"rc 0x99d"), "rc 0x99d");
    }
}
