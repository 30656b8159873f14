"""Attacks of the areas jwt, http, resource, discovery, session, csrf and pkce that the first form does not cover.

Each id with the reason. An id that is neither here nor in the corpus is an oversight; the ids of the areas are in
`IDS`, so that the two together can be checked to be complete.
"""

from collections.abc import Mapping

PENDING: Mapping[str, str] = {
    "ses-07": "needs a second stream held open beside the first; the SDK answers 409",
    "ses-09": "resumable streams: event ids are bound with the shared stores",
    "ses-15": "proof of possession is not in the first form",
    "ses-16": "absolute session lifetime comes with the shared stores; idle expiry is tested with a moved clock",
    "ses-17": "revocation closes open streams with the shared stores",
    "ses-18": "streams end at the token's expiry with the shared stores",
    "ses-22": "requestState is sealed with the shared stores",
    "ses-23": "requestState is sealed with the shared stores",
    "ses-24": "requestState is sealed with the shared stores",
    "ses-25": "task handles are bound with the shared stores",
}
