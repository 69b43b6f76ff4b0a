//! Watching the end of the log: told by the writer in the same process, or by looking at the end marker.

use std::time::Duration;

use tokio::sync::watch;

use super::durable::{self, End};
use super::folder::Folder;
use crate::time::sleep;

/// How often a reader looks at the marker of a writer in another process.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// The end of the log as one reader knows it. It never goes back.
#[derive(Clone)]
pub(super) enum Tail {
    /// The writer is in this process.
    Here(watch::Receiver<End>),
    /// The writer is in another process, or nowhere at the moment.
    Elsewhere { folder: Folder, partitions: u32, known: End },
}

impl Tail {
    /// The end now.
    pub(super) fn end(&mut self) -> End {
        match self {
            Self::Here(ends) => ends.borrow_and_update().clone(),
            Self::Elsewhere { known, .. } => {
                let known = known.clone();
                self.look().unwrap_or(known)
            }
        }
    }

    /// Resolves when the end has moved since [`Tail::end`]; never, when the writer has stopped.
    pub(super) async fn moved(&mut self) {
        match self {
            Self::Here(ends) => {
                if ends.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Self::Elsewhere { .. } => {
                while self.look().is_none() {
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Looks at the marker: the new end, if it is one. The marker is tiny and in the page cache.
    fn look(&mut self) -> Option<End> {
        let Self::Elsewhere { folder, partitions, known } = self else { return None };
        let end = durable::read(folder, *partitions).filter(|end| end.is_beyond(known))?;
        known.clone_from(&end);
        Some(end)
    }
}
