//! What sources have made and nothing remembers yet.
//!
//! ```text
//! made in the hardware ─> noted here ─> ... ─> durable ─> kept
//!                                       └─ an error ─> taken back, the newest first; what stays is told
//! ```
//! Without this each try that fails would leave an index or a key behind, until the hardware has no room for the next
//! one. A cut of the power between the making and the moment at which it is durable does so: nobody is there then to
//! take it back.

use super::SourceError;
use crate::slot::SlotPublic;

/// Slots that are in hardware and not yet durable, each with whoever can take it back. It is either kept or emptied:
/// dropped with something in it, it says so in the log.
#[derive(Debug)]
#[must_use]
pub struct Unkept<S> {
    made: Vec<(S, SlotPublic)>,
}

impl<S> Default for Unkept<S> {
    fn default() -> Self {
        Self { made: Vec::new() }
    }
}

impl<S> Unkept<S> {
    /// `source` has made this.
    pub fn note(&mut self, source: S, made: &SlotPublic) {
        self.made.push((source, made.clone()));
    }

    /// All of it is durable now, or somebody else's to take back.
    pub fn kept(mut self) {
        self.made.clear();
    }

    /// The newest of what is to be taken back; it is the caller's to do.
    pub fn pop(&mut self) -> Option<(S, SlotPublic)> {
        self.made.pop().filter(|_| host::in_force("unkept-taken-back"))
    }

    /// Has each taken back by `discard`, and gives what could not be, which is in the log too.
    pub fn take_back(mut self, mut discard: impl FnMut(S, &SlotPublic) -> Result<(), SourceError>) -> Vec<String> {
        let mut stays = Vec::new();
        while let Some((source, public)) = self.pop() {
            if let Err(e) = discard(source, &public) {
                let told = left_behind(&public, &e);
                tracing::warn!("{told}");
                stays.push(told);
            }
        }
        stays
    }
}

impl<S> Drop for Unkept<S> {
    fn drop(&mut self) {
        for (_, public) in &self.made {
            tracing::warn!("what a source of kind `{}` has made for a slot is left behind", public.kind());
        }
    }
}

/// What is to be said of a slot that could not be taken back.
pub fn left_behind(public: &SlotPublic, error: &SourceError) -> String {
    format!(
        "what a source of kind `{}` has made for a slot that did not come about stays there: {}",
        public.kind(),
        host::with_causes(error)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::SourceKind;

    fn noted() -> Unkept<u8> {
        let mut unkept = Unkept::default();
        unkept.note(1, &SlotPublic::bare(SourceKind::Tpm));
        unkept.note(2, &SlotPublic::bare(SourceKind::Exec));
        unkept
    }

    #[test]
    fn the_newest_goes_first_and_what_stays_is_told() {
        let mut order = Vec::new();
        let stays = noted().take_back(|source, public| {
            order.push((source, public.kind()));
            match source {
                1 => Err(SourceError::NotPresent { what: "/dev/tpmrm0".into() }),
                _ => Ok(()),
            }
        });
        assert_eq!(order, [(2, SourceKind::Exec), (1, SourceKind::Tpm)]);
        let told = "what a source of kind `tpm` has made for a slot that did not come about stays there: /dev/tpmrm0 is not there";
        assert_eq!(stays, [told]);
    }

    #[test]
    fn what_is_kept_is_not_taken_back() {
        let mut unkept = noted();
        assert_eq!(unkept.pop().map(|(source, _)| source), Some(2));
        unkept.kept();
    }
}
