//! Posts events to the receivers that the operator names.
//!
//! Events of the journal go into a backlog for each receiver, which is bounded, and from there to the receiver in order,
//! as many at once as have come. A receiver that is down or slow has them wait; nobody else waits for it.

mod backlog;
mod receiver;
mod signature;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use hyper::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy, rt::TokioExecutor};
use rustls::{ClientConfig, RootCertStore};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};

pub(crate) use self::receiver::{Client, Counts};
use self::{
    backlog::Waiting,
    receiver::{Options, Receiver},
    signature::Key,
};
use crate::{
    admin::model,
    config::settings::Webhook,
    journal::{Event, Journal},
};

/// All receivers. Clones are the same; the last one to go takes the tasks with it.
#[derive(Clone, Debug)]
pub(crate) struct Webhooks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    posts: Arc<Mutex<Vec<Post>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A receiver, and the task that posts to it.
#[derive(Clone, Debug)]
struct Post {
    receiver: Arc<Receiver>,
    task: AbortHandle,
}

/// Receivers with everything read that they need, so that they can only be taken on.
#[derive(Debug)]
pub(crate) struct Prepared {
    receivers: Vec<Options>,
    client: Client,
}

impl Prepared {
    /// # Errors
    /// If a key cannot be read, or the certificates that this host trusts.
    pub(crate) fn new(webhooks: &[Webhook]) -> anyhow::Result<Self> {
        let one = |webhook: &Webhook| {
            let Webhook { url, secret_file, events, timeout, max_queue, give_up_after } = webhook;
            let url: Uri = url.parse().context("the URL of a webhook is none")?;
            let key = secret_file.as_deref().map(Key::read).transpose()?;
            let (timeout, give_up_after) = (*timeout, *give_up_after);
            Ok(Options { url, key, kinds: events.clone(), timeout, bound: *max_queue, give_up_after })
        };
        let receivers: Vec<_> = webhooks.iter().map(one).collect::<anyhow::Result<_>>()?;
        let client = client(receivers.iter().any(|options| options.url.scheme_str() == Some("https")))?;
        Ok(Self { receivers, client })
    }
}

impl Webhooks {
    /// Begins to post the events of `journal` from now on.
    pub(crate) fn start(journal: &Journal, prepared: Prepared) -> Self {
        let webhooks = Self(Arc::new(Shared { posts: Arc::default(), tasks: Mutex::default() }));
        webhooks.configure(prepared);
        // By listening: a burst of events must not be too much for a receiver that has room for it.
        let posts = Arc::downgrade(&webhooks.0.posts);
        journal.listen(move |event| {
            if let Some(posts) = posts.upgrade() {
                hand_out(event, &posts.lock().unwrap_or_else(PoisonError::into_inner));
            }
        });
        webhooks
    }

    /// Takes on other receivers. Those that stay keep what waits for them; what waits for the others is dropped.
    pub(crate) fn configure(&self, Prepared { receivers, client }: Prepared) {
        let mut tasks = self.tasks();
        let mut posts = self.posts();
        let mut before = std::mem::take(&mut *posts);
        for options in receivers {
            let known = before.iter().position(|post| post.receiver.is(&options));
            posts.push(match known.map(|at| before.swap_remove(at)) {
                Some(post) => {
                    post.receiver.configure(options);
                    post
                }
                None => {
                    let receiver = Arc::new(Receiver::new(options));
                    let task = tasks.spawn(Arc::clone(&receiver).run(client.clone()));
                    Post { receiver, task }
                }
            });
        }
        for gone in before {
            gone.task.abort();
        }
        while tasks.try_join_next().is_some() {}
    }

    /// Gives receivers this long to take what waits for them.
    pub(crate) async fn flush(&self, within: Duration) {
        let posts = self.posts().clone();
        let all = async {
            for post in &posts {
                post.receiver.emptied().await;
            }
        };
        if timeout(within, all).await.is_err() {
            for Post { receiver, .. } in posts {
                let (to, events) = (receiver.origin(), receiver.counts().waiting);
                if events > 0 {
                    tracing::warn!(to, events, "a webhook's receiver did not take its last events; they are lost");
                }
            }
        }
    }

    /// What each receiver has got, in the order of the configuration.
    pub(crate) fn counts(&self) -> Vec<Counts> {
        self.posts().iter().map(|post| post.receiver.counts()).collect()
    }

    fn posts(&self) -> MutexGuard<'_, Vec<Post>> {
        self.0.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands an event to all receivers that want it, which takes no waiting.
fn hand_out(event: &Event, posts: &[Post]) {
    let since = Instant::now();
    let mut json: Option<Arc<str>> = None;
    for Post { receiver, .. } in posts {
        receiver.offer(event.kind.name(), || {
            let json = json.get_or_insert_with(|| model::Event::new(event).to_json().into());
            Waiting { since, json: Arc::clone(json) }
        });
    }
}

/// A client that follows no redirects, has no cookies, and trusts what this host trusts.
pub(crate) fn client(tls: bool) -> anyhow::Result<Client> {
    let builder = HttpsConnectorBuilder::new();
    let https = if tls {
        let missing = "cannot read the certificates that this host trusts; install the package ca-certificates";
        builder.with_native_roots().context(missing)?
    } else {
        let trusts_nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        builder.with_tls_config(trusts_nobody.with_no_client_auth())
    };
    let https = https.https_or_http().enable_http1().build();
    Ok(legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(https))
}
