"""Each error with a status has a reason in the protos, and each reason an error that tells it, or its place here."""

import grpc
from onrecord.common.v1 import common_pb2

from audit_svc import errors as audit_errors
from audit_svc.services import STATUSES as AUDIT
from audit_svc.services import error_interceptor
from gateway_svc import errors as gateway_errors
from gateway_svc.servicer import RETRY_AFTER_SECONDS
from gateway_svc.servicer import STATUSES as GATEWAY
from service_kit import errors as kit

ELSEWHERE = {
    "UNSPECIFIED": "the zero of the enum",
    "INTERNAL": "service_kit.errors, of an error without a status",
}


def reasons_of(classes: set[type[Exception]]) -> set[str]:
    return {kit._reason(cls) for cls in classes}


def subclasses(cls: type[Exception]) -> set[type[Exception]]:
    return {cls}.union(*(subclasses(each) for each in cls.__subclasses__()))


def test_each_error_with_a_status_has_a_reason_and_each_reason_an_error():
    known = {name.removeprefix("ERROR_REASON_") for name in dict(common_pb2.ErrorReason.items())}
    with_status = {*kit._COMMON, *AUDIT, *GATEWAY}
    roots = subclasses(audit_errors.AuditError) | subclasses(gateway_errors.GatewayError)
    told = {cls for cls in roots | set(kit._COMMON) if any(ancestor in with_status for ancestor in cls.__mro__)}
    told |= with_status
    assert reasons_of(told) <= known
    assert known - reasons_of(told) <= set(ELSEWHERE), "a reason that nothing tells"


def test_what_is_used_up_says_when_to_try_again_unless_a_second_try_cannot_help():
    audit = error_interceptor()._statuses._retry_after_seconds
    for statuses, retries, never in (
        (AUDIT, audit, {audit_errors.TailBehind}),
        (GATEWAY, RETRY_AFTER_SECONDS, set()),
    ):
        exhausted = {cls for cls, code in statuses.items() if code is grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert exhausted - set(retries) == never
