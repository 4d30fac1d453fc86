// A server of SQS on loopback that forgets everything when it ends: node sqs.js PORT.
import { createSqsServer } from "local-aws-sqs";

await createSqsServer({ port: Number(process.argv[2]), hostname: "127.0.0.1" });
