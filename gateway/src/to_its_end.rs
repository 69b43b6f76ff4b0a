//! Work that goes on to its end when whoever waits for it is gone: what is left of it then becomes a task.
//! Guarantees: the work is never dropped half done while its runtime lives; as long as somebody waits it costs no task and
//! no wake-up of its own (ADR 0024). On a panic in the work it ends where it stands, as a task would.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A future whose rest runs as one of `tasks` when it is dropped early.
pub(crate) struct ToItsEnd<T: Send + 'static> {
    work: Option<Work<T>>,
    tasks: TaskTracker,
}

impl<T: Send + 'static> ToItsEnd<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static, tasks: &TaskTracker) -> Self {
        Self { work: Some(Box::pin(work)), tasks: tasks.clone() }
    }
}

impl<T: Send + 'static> Future for ToItsEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Out of its place while it runs, so that work that panics is not polled again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToItsEnd<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && let Ok(runtime) = Handle::try_current()
        {
            self.tasks.spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Work that waits for `go` and then says `done`.
    fn work() -> (oneshot::Sender<()>, oneshot::Receiver<u8>, impl Future<Output = u8> + Send) {
        let ((go, gone), (done, is_done)) = (oneshot::channel::<()>(), oneshot::channel());
        let work = async move {
            gone.await.unwrap();
            done.send(7).unwrap();
            7
        };
        (go, is_done, work)
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_done_all_the_same_and_counts_as_running() {
        let (tasks, (go, is_done, work)) = (TaskTracker::new(), work());
        let mut waited_for = ToItsEnd::new(work, &tasks);
        assert!(futures::poll!(&mut waited_for).is_pending());
        assert!(tasks.is_empty());
        drop(waited_for);
        assert_eq!(tasks.len(), 1);
        go.send(()).unwrap();
        assert_eq!(is_done.await, Ok(7));
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn what_is_waited_for_needs_no_task() {
        let (tasks, (go, is_done, work)) = (TaskTracker::new(), work());
        go.send(()).unwrap();
        assert_eq!(ToItsEnd::new(work, &tasks).await, 7);
        assert_eq!(is_done.await, Ok(7));
        assert!(tasks.is_empty());
    }
}
