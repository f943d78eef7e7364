//! The machine's steps: an event in, its actions done, until nothing is left to do now.

use std::collections::VecDeque;
use std::time::Duration;

use super::running::Running;
use crate::machine::{Action, Event, State};

impl Running {
    /// Steps the machine until nothing is left to do now.
    pub(super) async fn feed(&mut self, event: Event) {
        let actions = self.step(event);
        self.forget_what_has_no_ground(&actions);
        self.carry_out(actions).await;
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let machine = self.machine.take().expect("the machine is in its place");
        let (machine, actions) = machine.step(event);
        self.machine = Some(machine);
        actions
    }

    /// Whatever is still to be done stood on an open store, and goes when that is closed.
    fn forget_what_has_no_ground(&mut self, next: &[Action]) -> bool {
        let closed = matches!(self.state(), State::Halted(_) | State::Sealed) || next.contains(&Action::CloseStore);
        if closed {
            self.later.clear();
        }
        closed
    }

    pub(super) async fn carry_out(&mut self, actions: Vec<Action>) {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            if let Some(after) = delay(&action).filter(|d| !d.is_zero()) {
                self.later.push((self.env.clock.boottime().plus(after), action));
                continue;
            }
            // Services are provided for together: their commits share the store's turns.
            let mut batch = vec![action];
            if matches!(batch[0], Action::Provide { .. }) {
                while matches!(queue.front(), Some(Action::Provide { after, .. }) if after.is_zero()) {
                    batch.extend(queue.pop_front());
                }
            }
            for event in self.act(batch).await {
                let next = self.step(event);
                if self.forget_what_has_no_ground(&next) {
                    queue.clear();
                }
                queue.extend(next);
            }
        }
    }
}

fn delay(action: &Action) -> Option<Duration> {
    match action {
        Action::Release { after }
        | Action::Reach { after }
        | Action::LayGround { after }
        | Action::KeepCredentials { after }
        | Action::Provide { after, .. } => Some(*after),
        _ => None,
    }
}

pub(super) fn undelayed(action: Action) -> Action {
    let after = Duration::ZERO;
    match action {
        Action::Release { .. } => Action::Release { after },
        Action::Reach { .. } => Action::Reach { after },
        Action::LayGround { .. } => Action::LayGround { after },
        Action::KeepCredentials { .. } => Action::KeepCredentials { after },
        Action::Provide { service, anew, .. } => Action::Provide { service, anew, after },
        other => other,
    }
}
