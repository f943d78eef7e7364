//! What a person types, and nobody who looks over a shoulder or scrolls back may read.

use std::io::{Read, Result, StdinLock};

use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::output;

/// Standard input. At a terminal it is one line that is not shown; from a pipe or a file it is what is there.
pub(super) struct Typed {
    stdin: StdinLock<'static>,
    what: &'static str,
    hidden: Option<Hidden>,
    ended: bool,
}

/// A terminal that does not show what is typed; what it was is put back at the end.
struct Hidden(Termios);

impl Typed {
    /// Nothing is asked, and nothing hidden, before the first read.
    pub(super) fn new(stdin: StdinLock<'static>, what: &'static str) -> Self {
        Self { stdin, what, hidden: None, ended: false }
    }

    fn hide(&mut self) -> Result<()> {
        if self.hidden.is_none() && isatty(&self.stdin) {
            let before = tcgetattr(&self.stdin)?;
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
            // Flush: what was typed ahead was shown, and is no answer to this question.
            tcsetattr(&self.stdin, OptionalActions::Flush, &silent)?;
            output::prompt(&format!("{} (not shown): ", self.what));
            self.hidden = Some(Hidden(before));
        }
        Ok(())
    }
}

impl Read for Typed {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        self.hide()?;
        if self.hidden.is_none() {
            return self.stdin.read(out);
        }
        let Some(first) = out.get_mut(..1) else { return Ok(0) };
        if self.ended {
            return Ok(0);
        }
        let n = self.stdin.read(first)?;
        self.ended = n == 0 || first == b"\n";
        Ok(if self.ended { 0 } else { n })
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        if let Some(Hidden(before)) = &self.hidden {
            let _ = tcsetattr(&self.stdin, OptionalActions::Now, before);
            output::prompt("\n");
        }
    }
}
