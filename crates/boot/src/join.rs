//! Several futures in one task: what services need is committed together, in few turns of the store's writer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// All outputs, in order.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut done = true;
        for (future, output) in waiting.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => done = false,
                }
            }
        }
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_go_on_together_and_keep_their_order() {
        let (send, receive) = tokio::sync::oneshot::channel();
        // The first can end only when the second has run: one after the other would hang.
        let futures: Vec<Pin<Box<dyn Future<Output = u8>>>> = vec![
            Box::pin(async move { receive.await.unwrap() }),
            Box::pin(async move {
                send.send(1).unwrap();
                2
            }),
        ];
        assert_eq!(join_all(futures).await, [1, 2]);
    }
}
