//! The gRPC service `herd.v1.ExecService`: commands in the sandboxes of sessions.

mod choice;
mod course;
mod refusal;

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{sync::mpsc::channel, task::JoinSet};
use tonic::{Request, Response, Status, Streaming};

use super::{
    service::Control,
    wire::{ExecRequest, ExecResponse, exec_service_server::ExecService},
};
use crate::admin::server::Peer;

/// How many commands may run at once, in all sandboxes together. Each makes the daemon hold up to 128 KiB
/// of what is on its way: input, and a piece of each output, once as it is read and once as it is sent.
pub(super) const MOST: usize = 128;

#[tonic::async_trait]
impl ExecService for Control {
    type ExecStream = BoxStream<'static, Result<ExecResponse, Status>>;

    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        // One place: what is read of the command's output is on its way to the client.
        let (responses, mut taken) = channel(1);
        let mut course = JoinSet::new();
        course.spawn(course::run(self.clone(), request.into_inner(), peer, responses));
        // Dropping the stream, as the server does when the connection or the stream breaks, aborts the course, and with
        // it goes the hold on the command.
        let answers = stream::poll_fn(move |cx| {
            let _ = &course;
            taken.poll_recv(cx)
        });
        Ok(Response::new(answers.boxed()))
    }
}
