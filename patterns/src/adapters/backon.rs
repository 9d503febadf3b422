//! Delays from a builder of the crate `backon`.

use ::backon::BackoffBuilder;

/// Each call gets a sequence that is built from a copy of `builder`; for
/// [`RetryLayer::delays`](crate::RetryLayer::delays).
///
/// The limits of the builder hold besides those of the [`RetryConfig`](crate::RetryConfig): by default it gives three delays.
/// Its jitter is off by default, and a seed set by `with_jitter_seed` gives every call the same delays.
///
/// # Example
/// ```
/// use seawall::{RetryConfig, RetryErrors, RetryLayer, adapters};
///
/// let builder = backon::ExponentialBuilder::default().with_jitter();
/// let retry = RetryLayer::new(RetryConfig::new("peer"), RetryErrors::all_idempotent())?
///     .delays(adapters::backon::delays(builder));
/// # let _ = retry;
/// # Ok::<_, seawall::InvalidConfig>(())
/// ```
pub fn delays<B>(builder: B) -> impl Fn() -> B::Backoff + Send + Sync + 'static
where
    B: BackoffBuilder + Clone + 'static,
    B::Backoff: 'static,
{
    move || builder.clone().build()
}
