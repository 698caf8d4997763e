"""What a label has spent according to the ledger, which knows every gateway, but not the rows still in their spools."""

import asyncio
from collections.abc import Collection

import grpc
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc

from gateway_svc.errors import BudgetUnknown
from gateway_svc.turns.budgets import Account
from recording.delivery.connection import Target, describe
from recording.rows.fit import label

ASK_SECONDS = 3.0


class LedgerSpending:
    """Asks the audit service, for which the gateway's token needs the role `reader`.

    What others than `producers` recorded does not count: anybody who may record could else use up a budget.
    """

    def __init__(self, target: Target, producers: Collection[str] = ()) -> None:
        """`producers` are names on the ledger's list besides this gateway's own.

        What was recorded without a list counts too: where there is one, nobody can record so.
        """
        self._target = target
        self._producers = sorted({target.producer_name, "", *producers})
        self._channel: grpc.aio.Channel | None = None

    async def ask(self, account: Account) -> int:
        """What the account has spent according to the ledger, in millionths of a US dollar.

        Raises:
            BudgetUnknown: the ledger does not answer, or refuses this gateway.
        """
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return sum(await asyncio.gather(*(self._ask(account, name) for name in self._producers)))
        except grpc.aio.AioRpcError as error:
            raise BudgetUnknown(f"the ledger cannot be asked what is spent ({describe(error)})") from error
        except TimeoutError as error:
            raise BudgetUnknown(f"the ledger did not say within {ASK_SECONDS:g} s what is spent") from error

    async def _ask(self, account: Account, producer: str) -> int:
        spent_by = questions_pb2.ToolCallFilter(
            labels=dict([label(account.key, account.value)]),
            created_from_ms=account.created_from_ms,
            recorded_by=producer,
        )
        request = questions_pb2.SummarizeUsageRequest(filter=spent_by)
        stub: questions_pb2_grpc.QuestionServiceAsyncStub = questions_pb2_grpc.QuestionServiceStub(self._open())
        response = await stub.SummarizeUsage(request, metadata=tuple(self._target.metadata()))
        return sum(group.usage.known_cost_micros for group in response.groups)

    async def aclose(self) -> None:
        """Closes the connection."""
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = self._target.channel()
        return self._channel
