package brokertest

// checks lists the checks. The leak check comes first, before goroutines of other checks
// are on their way out.
var checks = []Check{
	{Name: "leak", Promise: "closed sources leave no goroutine, connection or message behind", alone: true, run: checkLeak},
	{Name: "restart", Promise: "nothing is lost when the broker is restarted", expires: true, alone: true, run: checkRestart},
	{Name: "demand", Promise: "the broker never counts more unacknowledged messages than were requested", run: checkDemand},
	{Name: "next", Promise: "Next ends with its context and loses no message", run: checkNext},
	{Name: "content", Promise: "body and attributes arrive unchanged", run: checkContent},
	{Name: "empty", Promise: "messages without a body and messages without attributes pass", run: checkEmpty},
	{Name: "keys", Promise: "messages of one key arrive in order", run: checkKeys},
	{Name: "ack", Promise: "no message is acknowledged before the consumer does so", run: checkAck},
	{Name: "requeue", Promise: "a message that was given back comes again", run: checkRequeue},
	{Name: "settle-once", Promise: "a message is settled once at the broker", run: checkSettleOnce},
	{Name: "poison", Promise: "a dead letter is stored with its reason and not delivered again", run: checkPoison},
	{Name: "panic", Promise: "a message whose handler panics becomes a dead letter after its attempts", run: checkPanic},
	{Name: "extend", Promise: "a message that is held is not delivered to others", expires: true, workers: 2, run: checkExtend},
	{Name: "close", Promise: "Close gives back messages that were not settled", run: checkClose},
	{Name: "drain", Promise: "Close waits for the settlement of messages", run: checkDrain},
	{Name: "leave", Promise: "a source that holds nothing closes, whatever it is about to do", run: checkLeave},
	{Name: "share", Promise: "two workers share a queue within 60 to 40", workers: 2, run: checkShare},
	{Name: "rebalance", Promise: "nothing is lost when workers join and leave", workers: 3, run: checkRebalance},
	{Name: "large", Promise: "a message larger than the byte window passes", run: checkLarge},
	{Name: "idle", Promise: "an idle source does not poll, and one without demand sends nothing", run: checkIdle},
	{Name: "cut", Promise: "nothing is lost when connections are cut", expires: true, run: checkCut},
	{Name: "stall", Promise: "nothing is lost when the network drops everything for a while", expires: true, run: checkStall},
	{Name: "freeze", Promise: "nothing is lost when the server does not answer for several seconds", expires: true, run: checkFreeze},
	{Name: "forget", Promise: "nothing is lost when connections go silent for ever", expires: true, run: checkForget},
	{Name: "refuse", Promise: "nothing is lost when the server is out of reach for a while", expires: true, run: checkRefuse},
	{Name: "kill", Promise: "nothing is lost when a consumer is killed", expires: true, run: checkKill},
	{Name: "kill-settling", Promise: "nothing is lost when a consumer is killed while it settles", expires: true, run: checkKillSettling},
}
