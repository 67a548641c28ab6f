"""Amazon ECR: Basic credentials with a fixed user, for twelve hours; pages by numbers that have a limit."""

from __future__ import annotations

from ocidist.server.personalities.facts import Fact, Personality, Refusal

AUTH = (
    "Amazon ECR User Guide, Private registry authentication, Using an authorization token: "
    "https://docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html#registry-auth-token"
)
CHALLENGE = "NVIDIA/enroot issue 59 (an answer in full): https://github.com/NVIDIA/enroot/issues/59"
PAGES = "deitch/docker_registry2 issue 34: https://github.com/deitch/docker_registry2/issues/34"
LIMIT = (
    "google/go-containerregistry issue 681: https://github.com/google/go-containerregistry/issues/681; "
    "renovatebot/renovate issue 3800: https://github.com/renovatebot/renovate/issues/3800"
)
BUCKETS = (
    "Amazon ECR User Guide, VPC endpoints, Minimum Amazon S3 bucket permissions: "
    "https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html#ecr-minimum-s3-perms"
)
BASIC = 'Basic realm="https://{host}/",service="ecr.amazonaws.com"'

PERSONALITY = Personality(
    name="Amazon ECR",
    reference="123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:1",
    host=Fact("123456789012.dkr.ecr.us-east-1.amazonaws.com", AUTH),
    repository=Fact("team/app", AUTH),
    challenge=Fact(BASIC, CHALLENGE),
    catalog_challenge=Fact(BASIC, CHALLENGE),
    unauthorized=Fact(b"Not Authorized\n", CHALLENGE + " (text/plain, fifteen bytes)"),
    user=Fact("AWS", AUTH),
    anonymous=Fact(False, AUTH),
    expires_in=Fact(12 * 3600, AUTH + " (of the password itself: there is no token beside it)"),
    storage=Fact(
        "https://prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com/1/123456789012/{hex}"
        "?X-Amz-Security-Token={key}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Signature={key}",
        BUCKETS,
    ),
    link=Fact('<https://{host}{path}?last={last}>; rel="next"', PAGES),
    page=Fact(1000, LIMIT),
    too_many=Fact(
        Refusal(
            405,
            b'{"errors":[{"code":"UNSUPPORTED","message":"Invalid parameter at \'maxResults\' failed to satisfy '
            b"constraint: 'Member must have value less than or equal to 1000'\"}]}",
        ),
        LIMIT,
    ),
    catalog=Fact(
        None,
        "Quiq/registry-ui pull request 48 (with n up to 1000): https://github.com/Quiq/registry-ui/pull/48",
    ),
)
