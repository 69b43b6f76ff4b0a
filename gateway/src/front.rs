//! What stands before the router: the requests of links, which are most of all requests, go straight to their handlers.
//! Guarantees: they meet the same rate limit and get the same metrics label as through the router; every other request, and
//! every other method on these paths, is the router's (ADR 0024).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::http::{Method, Request};
use axum::response::Response;
use shared::http::{Peer, Route};
use tower::Service;

use crate::click::{Asked, CLICK, PIXEL, click, pixel};
use crate::routes::limited;
use crate::state::State;

/// The gateway's service.
#[derive(Clone)]
pub(crate) struct Front {
    state: Arc<State>,
    router: Router,
}

impl Front {
    pub(crate) fn new(state: Arc<State>, router: Router) -> Self {
        Self { state, router }
    }
}

impl<B> Service<Request<B>> for Front
where
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The router always is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = match (request.method(), request.uri().path()) {
            (&Method::GET, CLICK) => CLICK,
            (&Method::GET, PIXEL) => PIXEL,
            _ => return Box::pin(self.router.call(request)),
        };
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            // Whatever body there is stays unread.
            let (head, _) = request.into_parts();
            let peer = head.extensions.get::<Peer>().copied();
            let asked = Asked { peer, uri: &head.uri, headers: &head.headers };
            let mut response = match limited(&state, peer, &head.headers) {
                Some(refusal) => refusal,
                None if path == CLICK => click(&state, &asked).await,
                None => pixel(&state, &asked).await,
            };
            response.extensions_mut().insert(Route(path.into()));
            Ok(response)
        })
    }
}
