use std::{collections::VecDeque, pin::pin};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{MAX_SCRIPT, evaluator::Evaluator};

/// How many scripts of one connection may wait for their turn, and their bytes.
const MAX_WAITING: usize = 1_024;
const MAX_WAITING_BYTES: usize = 4 * MAX_SCRIPT;

/// Why a conversation ended: what the close frame says, or nothing if there is nobody left to tell.
type End = Option<(CloseCode, &'static str)>;

/// Evaluates one script per text message and answers each, in order, until the client leaves. The script that runs then
/// is cancelled.
pub(super) async fn converse<S>(stream: S, evaluator: &Evaluator)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default().max_message_size(Some(MAX_SCRIPT)).max_frame_size(Some(MAX_SCRIPT));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    if let Some((code, reason)) = answer_scripts(&mut socket, evaluator).await {
        // The close frame is a courtesy; the connection ends in any case.
        let _ = socket.close(Some(CloseFrame { code, reason: reason.into() })).await;
    }
}

async fn answer_scripts<S>(socket: &mut WebSocketStream<S>, evaluator: &Evaluator) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut waiting = VecDeque::new();
    loop {
        let script = match waiting.pop_front() {
            Some(script) => script,
            None => match next_script(socket).await {
                Ok(script) => script,
                Err(end) => return end,
            },
        };
        let mut evaluation = pin!(evaluator.evaluate(script));
        // Reading goes on meanwhile: that is how a client that leaves is noticed, and pings are answered.
        let answer = loop {
            tokio::select! {
                answer = &mut evaluation => break answer,
                next = next_script(socket) => match next {
                    Ok(script) => waiting.push_back(script),
                    Err(end) => return end,
                },
            }
            if waiting.len() > MAX_WAITING || waiting.iter().map(String::len).sum::<usize>() > MAX_WAITING_BYTES {
                return Some((CloseCode::Policy, "too many scripts wait for their turn"));
            }
        };
        let text = match answer {
            Some(Ok(text)) => text,
            Some(Err(error)) => format!("error: {error}"),
            None => return Some((CloseCode::Error, "the evaluator died")),
        };
        if socket.send(Message::text(text)).await.is_err() {
            return None;
        }
    }
}

/// The next text message. Cancel safe.
async fn next_script<S>(socket: &mut WebSocketStream<S>) -> Result<String, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(script))) => return Ok(script.as_str().to_owned()),
            Some(Ok(Message::Binary(_))) => {
                return Err(Some((CloseCode::Unsupported, "send scripts as text messages")));
            }
            Some(Ok(Message::Close(_))) => {
                // The library has prepared the answering close frame, and sends it when it is flushed.
                let _ = socket.flush().await;
                return Err(None);
            }
            Some(Ok(_)) => {}
            Some(Err(Error::Capacity(_))) => return Err(Some((CloseCode::Size, "a script has at most 1 MiB"))),
            Some(Err(Error::Utf8(_))) => return Err(Some((CloseCode::Invalid, "a script is UTF-8"))),
            Some(Err(Error::Protocol(_))) => return Err(Some((CloseCode::Protocol, ""))),
            Some(Err(_)) | None => return Err(None),
        }
    }
}
