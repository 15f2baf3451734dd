//! All that is decided about a request before the pool is asked: *access*, *route* and *key*.

use std::sync::Arc;

use herd_pool::WorkerFactory;
use hyper::{
    Request, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    http::uri::PathAndQuery,
};

use crate::{
    Admission, Refusal,
    access::set_target,
    account::Account,
    admit::Survey,
    failure::Failure,
    latency::Phase,
    options::MetricsPage,
    random::random_session_id,
    session_key::{Found, KeyError, Named, asks_for},
    setup::{Seat, Setup},
    trace,
    wish::Wish,
};

/// Where a request goes.
pub(crate) enum Decision<F: WorkerFactory> {
    /// To the worker of this session of this pool.
    Session { named: Named, seat: Arc<Seat<F>>, wish: Wish },
    /// It is for the gateway itself.
    Page(Response<String>),
}

/// A page of the gateway's own.
enum Page<'a> {
    Health,
    Metrics(&'a MetricsPage),
}

impl<F: WorkerFactory> Setup<F> {
    /// Finds out where the request goes, and makes its target the worker's.
    pub(crate) fn decide<B>(
        &self,
        request: &mut Request<B>,
        survey: &Survey,
        account: &mut Account<F>,
    ) -> Result<Decision<F>, Failure> {
        let page = self.page(request);
        let admission = match self.admit(request, account) {
            Ok(admission) => admission,
            // Whoever only wants to know whether the gateway is there need not be known to it.
            Err(_) if matches!(page, Some(Page::Health)) && self.names_none(request)? => {
                return Ok(Decision::Page(Page::Health.answer()));
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let wish = Wish::take(request, survey)?;
        if let Some(page) = &page
            && admission.session.is_none()
            && self.names_none(request)?
        {
            // The page tells of all tenants, so it is no tenant's to read.
            if matches!(page, Page::Metrics(_)) && admission.tenant.is_some() {
                return Err(Failure::ForbiddenPage);
            }
            return Ok(Decision::Page(page.answer()));
        }
        if let Some(tracer) = &self.options.tracer {
            trace::sift(request.headers_mut());
            account.follow(tracer.begin(request.method(), request.headers()));
        }
        let way = self.table.find(request)?;
        let seat = &self.seats[way.pool];
        account.seated(seat.clone());
        if let Some(target) = way.target {
            set_target(request, target);
        }
        let named = match self.options.session_key.find(request, page.is_some())? {
            Found::Session(named) => named,
            found => match (&admission.session, found) {
                (Some(only), _) => Named::plain(only.clone()),
                (None, Found::Cookieless(name)) if wish == Wish::Serve => {
                    Named::in_new_cookie(random_session_id().map_err(|_| Failure::Random)?, &name)
                }
                // A session that is made for the request alone is none that it could resume or end.
                (None, _) => return Err(Failure::NoKey(self.options.session_key.clone())),
            },
        };
        let named = admission.bind(named)?;
        account.tell_path(named.path.as_ref().map_or_else(|| request.uri().path(), PathAndQuery::path));
        match self.options.access {
            Some(_) => account.enter(Phase::Lease),
            // All that was done takes less time than looking at the clock some more would be worth.
            None => account.pass(Phase::Lease),
        }
        Ok(Decision::Session { named, seat: seat.clone(), wish })
    }

    /// *access*: who sends it?
    fn admit<B>(&self, request: &mut Request<B>, account: &mut Account<F>) -> Result<Admission, Refusal> {
        let Some(access) = &self.options.access else { return Ok(Admission::default()) };
        let admission = access.admit(request.headers(), request.uri())?;
        account.admitted(&admission);
        admission.strip(request, access.query_parameter());
        Ok(admission)
    }

    fn page<B>(&self, request: &Request<B>) -> Option<Page<'_>> {
        let metrics = self.options.metrics.as_ref().filter(|page| asks_for(request, &page.path));
        metrics.map(Page::Metrics).or_else(|| asks_for(request, "/healthz").then_some(Page::Health))
    }

    /// Whether the request, which is for one of the gateway's pages, names no session.
    fn names_none<B>(&self, request: &Request<B>) -> Result<bool, KeyError> {
        Ok(!matches!(self.options.session_key.find(request, true)?, Found::Session(_)))
    }
}

impl Page<'_> {
    fn answer(&self) -> Response<String> {
        let (text, kind) = match self {
            Self::Health => ("ok".to_owned(), "text/plain"),
            Self::Metrics(page) => ((page.render)(), "text/plain; version=0.0.4"),
        };
        let mut page = Response::new(text);
        page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        page
    }
}
